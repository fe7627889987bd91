//! `qemu-img` and `qemu-io`: QEMU's block layer as a client.

use super::{assert_same, write_image};
use crate::program::Program;

/// An image converted into the export and out of it is the same image.
pub fn convert_and_compare(uri: &str, size: u64) {
    let Some(qemu) = Program::find("qemu-img", "qemu-utils") else { return };
    let folder = tempfile::tempdir().expect("a folder for images");
    let (image, back) = (folder.path().join("image"), folder.path().join("back"));
    write_image(&image, size, 7);
    let (image_path, back_path) = (image.to_string_lossy(), back.to_string_lossy());
    qemu.run(&["convert", "-n", "-f", "raw", "-O", "raw", &image_path, uri]);
    qemu.run(&["compare", "-f", "raw", "-F", "raw", &image_path, uri]);
    qemu.run(&["convert", "-f", "raw", "-O", "raw", uri, &back_path]);
    assert_same(&image, &back);
}

/// Patterns written and read at odd sizes and places, zeroed, discarded, with FUA, side by side.
pub fn patterns(uri: &str, size: u64) {
    let Some(qemu) = Program::find("qemu-io", "qemu-utils") else { return };
    let last = format!("{}", size - 512);
    let beyond = format!("write -P 1 {size} 512");
    let last_write = format!("write -P 0x11 {last} 512");
    let last_read = format!("read -P 0x11 {last} 512");
    let commands = [
        "write -P 0xab 0 1M",
        "write -P 0xcd 512 512",
        "read -P 0xab 0 512",
        "read -P 0xcd 512 512",
        "read -P 0xab 1024 1047552",
        "write -f -P 0x5a 65024 131072",
        "read -P 0x5a 65024 131072",
        "write -z 128k 64k",
        "read -P 0 128k 64k",
        "write -z -u 4k 4k",
        "read -P 0 4k 4k",
        "write -z -f 1536 512",
        "read -P 0 1536 512",
        "write -P 0x77 2M 5M",
        "read -P 0x77 2M 5M",
        "flush",
        "discard 3M 1M",
        "read -P 0x77 2M 1M",
        "read -P 0x77 4M 3M",
        "aio_write -P 0x21 1M 64k",
        "aio_write -P 0x22 1114112 64k",
        "aio_write -P 0x23 1179648 512",
        "aio_flush",
        "read -P 0x21 1M 64k",
        "read -P 0x22 1114112 64k",
        "read -P 0x23 1179648 512",
        &last_write,
        &last_read,
    ];
    let mut arguments = vec!["-f", "raw"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    arguments.push(uri);
    let said = qemu.run(&arguments);
    assert!(!said.to_lowercase().contains("fail"), "{said}");
    assert!(!said.to_lowercase().contains("error"), "{said}");
    // And that a pattern which is not there is noticed, and the end of the disk is an end.
    let wrong = qemu.output(&["-f", "raw", "-c", "read -P 0x78 2M 512", uri]);
    assert!(String::from_utf8_lossy(&wrong.stdout).contains("verification failed"));
    let outside = qemu.output(&["-f", "raw", "-c", &beyond, uri]);
    let said = [outside.stdout, outside.stderr].concat();
    let said = String::from_utf8_lossy(&said).to_lowercase();
    assert!(said.contains("fail") || said.contains("error"), "{said}");
}
