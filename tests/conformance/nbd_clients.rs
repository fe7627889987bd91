//! Real NBD clients against the NBD server over a RAM disk.

use block_io::Geometry;
use forebay_tests::nbd::{copy, fio, info, qemu};
use forebay_tests::server::ServerUnderTest;

fn server() -> ServerUnderTest {
    ServerUnderTest::start(Geometry::new(32 << 20))
}

#[test]
fn nbdinfo_understands_the_export() {
    let server = server();
    for uri in [server.unix(), server.tcp()] {
        info::size_flags_and_block_sizes(&uri, server.size());
        info::one_extent_of_data(&uri, server.size());
        let exports = [("disk", "A RAM disk"), ("other", "")];
        let exports = exports.map(|(name, about)| (name.to_owned(), about.to_owned()));
        if let Some(listed) = info::listed(&uri) {
            assert_eq!(listed, exports);
        }
    }
}

#[test]
fn nbdcopy_copies_in_and_out() {
    let server = server();
    copy::in_and_out(&server.unix(), server.size(), 1);
    copy::in_and_out(&server.tcp(), server.size(), 1);
}

#[test]
fn nbdcopy_copies_over_four_connections() {
    let server = server();
    copy::in_and_out(&server.unix(), server.size(), 4);
}

#[test]
fn qemu_img_converts_and_compares() {
    let server = server();
    qemu::convert_and_compare(&server.unix(), server.size());
    qemu::convert_and_compare(&server.tcp(), server.size());
}

#[test]
fn qemu_io_finds_its_patterns() {
    let server = server();
    qemu::patterns(&server.unix(), server.size());
}

#[test]
fn qemu_works_with_large_blocks_and_without_zeroing() {
    let geometry = Geometry::new(32 << 20);
    let geometry =
        Geometry { write_zeroes: false, discard: false, transfer_max: 64 << 10, ..geometry };
    let server = ServerUnderTest::start(geometry);
    qemu::patterns(&server.unix(), server.size());
    let geometry = Geometry { block_size: 4096, ..geometry };
    let server = ServerUnderTest::start(geometry);
    qemu::convert_and_compare(&server.unix(), server.size());
    copy::in_and_out(&server.unix(), server.size(), 4);
}

#[test]
fn fio_verifies_every_block() {
    let server = server();
    fio::verified_mix(&server.unix(), server.size());
    fio::verified_mix(&server.tcp(), server.size());
}
