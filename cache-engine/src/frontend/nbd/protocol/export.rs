//! What an export is to a client: a name, a description, and a device's geometry in NBD's terms.

use block_io::{Geometry, SECTOR_SIZE};

use super::spec::{PAYLOAD_MAX, transmission_flag as flag};

/// One device under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The name clients ask for; at most 4096 bytes of UTF-8. The first export of a server is
    /// also found under the empty name.
    pub name: String,
    /// For people, shown by clients that list exports; may be empty, at most 4096 bytes.
    pub description: String,
    /// Size, limits and capabilities.
    pub geometry: Geometry,
}

impl Export {
    /// NBD's transmission flags for it. DF only makes sense with `structured` replies.
    pub(super) fn transmission_flags(&self, structured: bool) -> u16 {
        // CAN_MULTI_CONN is true of every export: its connections share one queue of one device,
        // so a flush covers what any of them has been told is written.
        let mut flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::CAN_MULTI_CONN;
        if structured {
            flags |= flag::SEND_DF;
        }
        if self.geometry.read_only {
            return flags | flag::READ_ONLY;
        }
        // Write zeroes works on every device: one without the operation gets zero bytes.
        flags |= flag::SEND_FUA | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO;
        if self.geometry.discard {
            flags |= flag::SEND_TRIM;
        }
        flags
    }

    /// Minimum, preferred and maximum block size in bytes.
    pub(super) fn block_sizes(&self) -> [u32; 3] {
        [self.geometry.block_size, self.geometry.preferred_block_size, PAYLOAD_MAX]
    }

    /// Whether a client that does not ask for block sizes would guess wrong: such clients keep to
    /// 512 bytes. //= NBD proto.md "Block size constraints"
    pub(super) fn requires_block_size(&self) -> bool {
        self.geometry.block_size > SECTOR_SIZE
    }
}

/// The export called `name`, or the first for the empty name.
pub(super) fn find<'a>(exports: &'a [Export], name: &[u8]) -> Option<(usize, &'a Export)> {
    let mut named = exports.iter().enumerate();
    named
        .find(|(_, export)| export.name.as_bytes() == name)
        .or_else(|| name.is_empty().then(|| exports.first()).flatten().map(|export| (0, export)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(geometry: Geometry) -> Export {
        Export { name: "disk".into(), description: String::new(), geometry }
    }

    #[test]
    fn flags_follow_the_geometry() {
        let writable = export(Geometry::new(1 << 20));
        assert_eq!(writable.transmission_flags(false), 0b1001_0110_1101);
        assert_eq!(writable.transmission_flags(true), 0b1001_1110_1101);
        let read_only = export(Geometry { read_only: true, ..Geometry::new(1 << 20) });
        assert_eq!(read_only.transmission_flags(false), 0b1_0000_0111);
        let rigid = export(Geometry { discard: false, ..Geometry::new(1 << 20) });
        assert_eq!(rigid.transmission_flags(false) & flag::SEND_TRIM, 0);
    }

    #[test]
    fn the_empty_name_is_the_first_export_unless_one_is_called_so() {
        let mut exports = vec![export(Geometry::new(512)), export(Geometry::new(1024))];
        exports[1].name = "other".into();
        assert_eq!(find(&exports, b"").map(|(index, _)| index), Some(0));
        assert_eq!(find(&exports, b"other").map(|(index, _)| index), Some(1));
        assert_eq!(find(&exports, b"dis").map(|(index, _)| index), None);
        exports[1].name.clear();
        assert_eq!(find(&exports, b"").map(|(index, _)| index), Some(1));
        assert_eq!(find(&[], b""), None);
    }
}
