//! From one discovery service to all that it refers to, and those that they refer to, each once.
//!
//! ```text
//!   next ──▶ a visit ──asked──▶ answered(log) ── its referrals ──▶ to visit, if not seen before
//!                          └──▶ failed(why) ────────────────────▶ told beside the answers
//! ```
//! A place is its transport address with its subsystem's name; a service that says its own unique
//! name is not visited under that again. A log entry of the service that is being asked
//! (SUBTYPE 3) is no referral, and of entries that return the same information (DUPRETINFO) one
//! is followed at most.
//!
//! Bounds: [`WalkLimits`]. Absent: connecting; who walks does it, several visits at a time if he
//! likes.

use std::collections::{BTreeSet, VecDeque};

use super::log::DiscoveryLog;
use super::route::{Route, route};
use crate::spec::log_page::{DiscoveryEntry, SubsystemKind, entry_flag};
use crate::spec::nqn::Nqn;

/// How far a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkLimits {
    /// Referrals one after the other; 0 follows none.
    pub depth_max: u32,
    /// Services that are asked, the first included.
    pub services_max: usize,
    /// Entries of all logs together; logs beyond are not kept.
    pub entries_max: usize,
}

impl Default for WalkLimits {
    fn default() -> Self {
        Self { depth_max: 8, services_max: 64, entries_max: 16384 }
    }
}

/// A service that is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Where.
    pub route: Route,
    /// Who referred to it; none for the first.
    pub referred_by: Option<Route>,
    /// Referrals that led to it.
    pub depth: u32,
    /// The first is 0; answers are told in this order.
    pub number: usize,
}

/// What a service said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who was asked.
    pub visit: Visit,
    /// The service's own name, where it has one beside the well-known.
    pub unique_name: Option<Nqn>,
    /// Its log.
    pub log: DiscoveryLog,
}

/// A referral that was not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfollowed {
    /// Whose log has it.
    pub referred_by: Route,
    /// What it says.
    pub entry: DiscoveryEntry,
    /// Why not.
    pub reason: String,
}

/// All that a walk found, in the order in which services were met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Of services that answered.
    pub answers: Vec<Answer>,
    /// Services that did not, and why.
    pub failures: Vec<(Visit, String)>,
    /// Referrals that lead nowhere, or too far.
    pub unfollowed: Vec<Unfollowed>,
}

/// A walk under way. See the module.
#[derive(Clone, Debug)]
pub struct Walk {
    limits: WalkLimits,
    seen: BTreeSet<Route>,
    to_visit: VecDeque<Visit>,
    /// Visits handed out so far, and those in `to_visit`.
    met: usize,
    entries: usize,
    findings: Findings,
}

impl Walk {
    /// A walk from `start`.
    pub fn new(start: Route, limits: WalkLimits) -> Self {
        let first = Visit { route: start.clone(), referred_by: None, depth: 0, number: 0 };
        Self {
            limits,
            seen: [start].into(),
            to_visit: [first].into(),
            met: 1,
            entries: 0,
            findings: Findings::default(),
        }
    }

    /// The next service to ask.
    pub fn next_visit(&mut self) -> Option<Visit> {
        self.to_visit.pop_front()
    }

    /// A service has answered. `name` is what it calls itself (Identify Controller, SUBNQN).
    pub fn answered(&mut self, visit: Visit, name: &str, log: DiscoveryLog) {
        let unique_name = Nqn::new(name).ok().filter(|name| !name.is_discovery());
        if let Some(subsystem) = unique_name.clone() {
            self.seen.insert(Route { address: visit.route.address, subsystem });
        }
        self.entries += log.entries.len();
        if self.entries > self.limits.entries_max {
            self.entries -= log.entries.len();
            let most = self.limits.entries_max;
            let count = log.entries.len();
            let error = format!("its log has {count} entries: all logs may have {most} in all");
            self.findings.failures.push((visit, error));
            return;
        }
        let mut may_follow_same = !log
            .entries
            .iter()
            .any(|entry| entry.kind == SubsystemKind::CurrentDiscovery && returns_the_same(entry));
        for entry in &log.entries {
            if entry.kind != SubsystemKind::Referral {
                continue;
            }
            if returns_the_same(entry) && !std::mem::take(&mut may_follow_same) {
                continue;
            }
            if let Err(reason) = self.refer(&visit, entry) {
                let (referred_by, entry) = (visit.route.clone(), entry.clone());
                self.findings.unfollowed.push(Unfollowed { referred_by, entry, reason });
            }
        }
        self.findings.answers.push(Answer { visit, unique_name, log });
    }

    /// A service could not be asked. The others are asked all the same.
    pub fn failed(&mut self, visit: Visit, error: String) {
        self.findings.failures.push((visit, error));
    }

    /// What was found.
    pub fn into_findings(self) -> Findings {
        let mut findings = self.findings;
        findings.answers.sort_by_key(|answer| answer.visit.number);
        findings.failures.sort_by_key(|(visit, _)| visit.number);
        findings
    }

    fn refer(&mut self, from: &Visit, entry: &DiscoveryEntry) -> Result<(), String> {
        let route = route(entry)?;
        if self.seen.contains(&route) {
            return Ok(());
        }
        let WalkLimits { depth_max, services_max, .. } = self.limits;
        if from.depth >= depth_max {
            return Err(format!("it is {} referrals away: at most {depth_max}", from.depth + 1));
        }
        if self.met >= services_max {
            return Err(format!("{services_max} services are asked already, which is the most"));
        }
        self.seen.insert(route.clone());
        self.to_visit.push_back(Visit {
            route,
            referred_by: Some(from.route.clone()),
            depth: from.depth + 1,
            number: self.met,
        });
        self.met += 1;
        Ok(())
    }
}

fn returns_the_same(entry: &DiscoveryEntry) -> bool {
    entry.flags & entry_flag::DUPLICATE != 0
}

#[cfg(test)]
mod tests {
    use super::super::entries::{entry, referral};
    use super::*;

    fn start() -> Route {
        Route {
            address: "192.0.2.1:8009".parse().expect("an address"),
            subsystem: Nqn::discovery(),
        }
    }

    fn log(entries: impl IntoIterator<Item = DiscoveryEntry>) -> DiscoveryLog {
        DiscoveryLog { generation: 1, entries: entries.into_iter().collect() }
    }

    /// Walks through services that answer what `log_of` says of the last number of their address.
    fn walk(
        limits: WalkLimits,
        log_of: impl Fn(u8) -> Result<DiscoveryLog, String>,
    ) -> (Vec<u8>, Findings) {
        let mut walk = Walk::new(start(), limits);
        let mut asked = Vec::new();
        while let Some(visit) = walk.next_visit() {
            let std::net::IpAddr::V4(address) = visit.route.address.ip() else {
                panic!("{visit:?}");
            };
            let number = address.octets()[3];
            asked.push(number);
            match log_of(number) {
                Ok(log) => walk.answered(visit, crate::spec::nqn::DISCOVERY_NQN, log),
                Err(error) => walk.failed(visit, error),
            }
            assert!(asked.len() < 1000, "it does not end");
        }
        (asked, walk.into_findings())
    }

    #[test]
    fn referrals_in_circles_are_followed_once() {
        // 1 → 2, 3; 2 → 1, 3; 3 → 1, 2, itself.
        let all = || [referral("192.0.2.1"), referral("192.0.2.2"), referral("192.0.2.3")];
        let (asked, findings) = walk(WalkLimits::default(), |_| Ok(log(all())));
        assert_eq!(asked, [1, 2, 3]);
        assert_eq!(findings.answers.len(), 3);
        assert_eq!(findings.answers[2].visit.referred_by, Some(start()));
        assert!(findings.unfollowed.is_empty());
    }

    #[test]
    fn one_that_fails_does_not_hide_the_others() {
        let (asked, findings) = walk(WalkLimits::default(), |number| match number {
            1 => Ok(log([referral("192.0.2.2"), referral("192.0.2.3"), entry("a", "192.0.2.9")])),
            2 => Err("connection refused".to_owned()),
            _ => Ok(log([entry("b", "192.0.2.9")])),
        });
        assert_eq!(asked, [1, 2, 3]);
        let names: Vec<_> = findings.answers.iter().map(|one| one.log.entries.len()).collect();
        assert_eq!(names, [3, 1]);
        let (visit, error) = &findings.failures[0];
        assert_eq!(
            (visit.route.address.to_string(), error.as_str()),
            ("192.0.2.2:8009".to_owned(), "connection refused")
        );
    }

    #[test]
    fn a_chain_ends_at_its_depth_and_a_crowd_at_its_count() {
        let next = |number: u8| Ok(log([referral(&format!("192.0.2.{}", number + 1))]));
        let (asked, findings) = walk(WalkLimits { depth_max: 3, ..WalkLimits::default() }, next);
        assert_eq!(asked, [1, 2, 3, 4]);
        assert!(findings.unfollowed[0].reason.contains("4 referrals away: at most 3"));
        let crowd = |number: u8| {
            Ok(match number {
                1 => log((2..=200).map(|number| referral(&format!("192.0.2.{number}")))),
                _ => log([]),
            })
        };
        let (asked, findings) =
            walk(WalkLimits { services_max: 5, ..WalkLimits::default() }, crowd);
        assert_eq!((asked.len(), findings.unfollowed.len()), (5, 199 - 4));
        let full = |_| Ok(log((0..9).map(|_| entry("a", "192.0.2.9"))));
        let (_, findings) = walk(WalkLimits { entries_max: 8, ..WalkLimits::default() }, full);
        assert!(findings.failures[0].1.contains("9 entries"), "{findings:?}");
    }

    #[test]
    fn the_service_itself_is_no_referral_under_any_of_its_names() {
        let current =
            DiscoveryEntry { kind: SubsystemKind::CurrentDiscovery, ..referral("192.0.2.7") };
        let (asked, _) = walk(WalkLimits::default(), |_| Ok(log([current.clone()])));
        assert_eq!(asked, [1]);
        // It refers to itself by its unique name.
        let name = "nqn.2014-08.com.example:discovery";
        let own = DiscoveryEntry { subsystem: name.into(), ..referral("192.0.2.1") };
        let mut walk = Walk::new(start(), WalkLimits::default());
        let visit = walk.next_visit().expect("the first");
        walk.answered(visit, name, log([own]));
        assert_eq!(walk.next_visit(), None);
        let findings = walk.into_findings();
        assert_eq!(findings.answers[0].unique_name.as_ref().map(Nqn::as_str), Some(name));
    }

    #[test]
    fn of_entries_that_return_the_same_one_is_asked() {
        let same =
            |address: &str| DiscoveryEntry { flags: entry_flag::DUPLICATE, ..referral(address) };
        let flagged = || vec![same("192.0.2.2"), same("192.0.2.3"), referral("192.0.2.4")];
        let of_first = |number: u8| Ok(log(if number == 1 { flagged() } else { vec![] }));
        let (asked, _) = walk(WalkLimits::default(), of_first);
        assert_eq!(asked, [1, 2, 4]);
        // The one asked is among them.
        let own = DiscoveryEntry { kind: SubsystemKind::CurrentDiscovery, ..same("192.0.2.1") };
        let with_own = |number: u8| {
            let entries =
                if number == 1 { [flagged(), vec![own.clone()]].concat() } else { vec![] };
            Ok(log(entries))
        };
        let (asked, _) = walk(WalkLimits::default(), with_own);
        assert_eq!(asked, [1, 4]);
    }

    #[test]
    fn referrals_that_lead_nowhere_are_told() {
        let wrong = [
            DiscoveryEntry { transport: 2, ..referral("192.0.2.2") },
            DiscoveryEntry { subsystem: "x".into(), ..referral("192.0.2.2") },
            referral("elsewhere"),
        ];
        let (asked, findings) = walk(WalkLimits::default(), |_| Ok(log(wrong.clone())));
        assert_eq!(asked, [1]);
        let reasons: Vec<_> = findings.unfollowed.iter().map(|one| one.reason.as_str()).collect();
        assert!(reasons[0].contains("TRTYPE is 2"), "{reasons:?}");
        assert!(reasons[1].contains("SUBNQN"), "{reasons:?}");
        assert!(reasons[2].contains("TRADDR is \"elsewhere\""), "{reasons:?}");
    }
}
