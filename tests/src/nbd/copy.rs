//! `nbdcopy` of libnbd: whole images in and out.

use super::{assert_same, write_image};
use crate::program::Program;

/// Copies an image in, twice so that old bytes have to give way to holes, and out again, over
/// so many connections.
pub fn in_and_out(uri: &str, size: u64, connections: u32) {
    let Some(nbdcopy) = Program::find("nbdcopy", "libnbd-bin") else { return };
    let folder = tempfile::tempdir().expect("a folder for images");
    let (image, back) = (folder.path().join("image"), folder.path().join("back"));
    let connections = format!("--connections={connections}");
    for seed in 0..2 {
        write_image(&image, size, seed);
        let _ = std::fs::remove_file(&back);
        let (image_path, back_path) = (image.to_string_lossy(), back.to_string_lossy());
        nbdcopy.run(&[&connections, "--flush", &image_path, uri]);
        nbdcopy.run(&[&connections, uri, &back_path]);
        assert_same(&image, &back);
    }
}
