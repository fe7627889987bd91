//! `forebay replay` as a user and a script see it: formats found out, exit codes, files written.

#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output};

fn replay(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.arg("replay").args(arguments).output().expect("the command starts")
}

fn refusal(arguments: &[&str], code: i32, expected: &str) {
    let output = replay(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(expected), "{arguments:?}: `{expected}` in {text}");
    assert!(output.stdout.is_empty() && !text.contains("panicked"), "{text}");
}

/// A loop over 64 blocks, four times.
fn write_loop(path: &Path) -> String {
    let lines = (0..256).map(|step| format!("{} 8 0 {step}\n", step % 64 * 8));
    std::fs::write(path, lines.collect::<String>()).expect("written");
    path.to_str().expect("a plain name").to_owned()
}

#[test]
fn a_trace_is_replayed_in_every_cache_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = write_loop(&folder.path().join("loop.lis"));
    let plot = folder.path().join("loop.svg");
    let plot_text = plot.to_str().expect("a plain name");
    let output = replay(&[&trace, "--size", "50%,1MiB", "--policy", "lru", "--plot", plot_text]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(text.starts_with("loop.lis (arc): 256 requests, 0 of them writes, on 256.0 KiB"));
    assert!(text.contains(" 0.0 % ") && text.contains(" 75.0 % "), "{text}");
    assert!(std::fs::read_to_string(&plot).expect("drawn").contains("<svg"));

    let output = replay(&[&trace, &trace, "--size", "64k", "--line-size", "4k,16k", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let traces = value["traces"].as_array().expect("a list");
    assert_eq!(traces.len(), 2);
    let results = traces[1]["results"].as_array().expect("a list");
    assert_eq!(results.len(), 8, "two line sizes, four policies");
    assert!(results.iter().all(|result| result["reads"] == 256));
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = write_loop(&folder.path().join("loop.lis"));
    refusal(&["/no/such/trace"], 1, "/no/such/trace: ");
    refusal(&[&trace, "--size", "0%"], 2, "more than 0%");
    refusal(&[&trace, "--plot", "curve.pdf"], 2, "must end in .svg or .png");
    refusal(&[&trace, "--policy", "fifo"], 2, "must be one of ours, s3-fifo, lru, belady");
    refusal(&[&trace, "--format", "csv"], 1, "loop.lis: line 1: `0 8 0 0`: must be a header");
    refusal(&[&trace, "--mode", "pass-through"], 2, "write-through or write-around");
    let far = folder.path().join("curve.svg/none.svg");
    refusal(&[&trace, "--plot", far.to_str().expect("plain")], 1, "none.svg: ");
}
