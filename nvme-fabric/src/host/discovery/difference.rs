//! What has changed between two discovery logs.
//!
//! An entry is the same one as long as it leads to the same place: transport, address, port, kind
//! and name, through the same port of the subsystem. What else it says may change.

use std::collections::BTreeMap;

use crate::spec::log_page::DiscoveryEntry;

/// What a newer log says that an older one did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Entries that lead where none led before, in the newer log's order.
    pub appeared: Vec<DiscoveryEntry>,
    /// Entries that lead where none leads now, in the older log's order.
    pub gone: Vec<DiscoveryEntry>,
    /// Entries that lead where they did and say something else: before and now, in the newer log's
    /// order.
    pub changed: Vec<(DiscoveryEntry, DiscoveryEntry)>,
}

impl Difference {
    /// From an older log's entries to a newer one's. Of entries that lead to the same place the
    /// first counts.
    pub fn between(before: &[DiscoveryEntry], now: &[DiscoveryEntry]) -> Self {
        let (old, new) = (by_place(before), by_place(now));
        let mut difference = Self::default();
        for entry in firsts(now, &new) {
            match old.get(&place(entry)) {
                None => difference.appeared.push(entry.clone()),
                Some(other) if *other != entry => {
                    difference.changed.push(((*other).clone(), entry.clone()));
                }
                Some(_) => {}
            }
        }
        let gone = firsts(before, &old).filter(|entry| !new.contains_key(&place(entry)));
        difference.gone = gone.cloned().collect();
        difference
    }

    /// Whether the logs say the same.
    pub fn is_empty(&self) -> bool {
        self.appeared.is_empty() && self.gone.is_empty() && self.changed.is_empty()
    }
}

type Place<'entry> = (u8, u8, u8, u16, &'entry str, &'entry str, &'entry str);
type ByPlace<'entry> = BTreeMap<Place<'entry>, &'entry DiscoveryEntry>;

fn place(entry: &DiscoveryEntry) -> Place<'_> {
    let DiscoveryEntry { transport, family, kind, port_id, address, service, subsystem, .. } =
        entry;
    (*transport, family.number(), kind.number(), *port_id, address, service, subsystem)
}

fn by_place(entries: &[DiscoveryEntry]) -> ByPlace<'_> {
    let mut found = BTreeMap::new();
    for entry in entries {
        found.entry(place(entry)).or_insert(entry);
    }
    found
}

/// The entries that count, in their order.
fn firsts<'entry>(
    entries: &'entry [DiscoveryEntry],
    counted: &ByPlace<'entry>,
) -> impl Iterator<Item = &'entry DiscoveryEntry> {
    entries.iter().filter(|entry| {
        counted.get(&place(entry)).is_some_and(|first| std::ptr::eq(*first, *entry))
    })
}

#[cfg(test)]
mod tests {
    use super::super::entries::entry;
    use super::*;

    #[test]
    fn entries_appear_go_and_change() {
        let (one, two, three) = (entry("a", "1"), entry("b", "2"), entry("c", "3"));
        let secure = DiscoveryEntry { security: 2, ..two.clone() };
        let before = [one.clone(), two.clone()];
        let now = [three.clone(), secure.clone()];
        let difference = Difference::between(&before, &now);
        assert_eq!(difference.appeared, [three]);
        assert_eq!(difference.gone, [one]);
        assert_eq!(difference.changed, [(two, secure)]);
        assert!(Difference::between(&now, &now).is_empty());
        assert_eq!(Difference::between(&[], &now).appeared, now);
        assert_eq!(Difference::between(&now, &[]).gone, now);
    }

    #[test]
    fn an_entry_that_is_repeated_counts_once_and_order_is_no_difference() {
        let (one, two) = (entry("a", "1"), entry("b", "2"));
        let repeated = [one.clone(), two.clone(), one.clone()];
        assert_eq!(Difference::between(&[], &repeated).appeared, [one.clone(), two.clone()]);
        assert!(Difference::between(&repeated, &[two, one]).is_empty());
    }

    #[test]
    fn another_port_or_kind_is_another_place() {
        let one = entry("a", "1");
        for other in [
            DiscoveryEntry { port_id: 9, ..one.clone() },
            DiscoveryEntry { service: "4421".into(), ..one.clone() },
            DiscoveryEntry { transport: 1, ..one.clone() },
            DiscoveryEntry { kind: crate::spec::log_page::SubsystemKind::Referral, ..one.clone() },
        ] {
            let difference = Difference::between(std::slice::from_ref(&one), &[other]);
            assert_eq!((difference.appeared.len(), difference.gone.len()), (1, 1));
        }
    }
}
