//! `cargo xtask ci`: everything that must hold before a change lands, the quick checks first and
//! the tests last, so that the output ends with their count.

use std::path::Path;

use crate::command::{Step, find_program};
use crate::{StepResult, fuzz, instructions, report, simulate, test, tidy};

/// How long the engine is simulated.
const SIMULATION_MINUTES: u32 = 2;

/// Links that lead nowhere are errors; those that lead to what is private are for its readers.
const DOCUMENTATION_FLAGS: &str = "--deny warnings --allow rustdoc::private_intra_doc_links";

/// Features of [`test::LIBRARY`] that must build without the others.
const LIBRARY_FEATURES: [&str; 4] = ["", "auth", "tls", "tokio-uring"];

/// Version of cargo-deny that is installed where there is none.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Runs every check; the first that fails ends the run.
///
/// # Errors
/// What failed, and the command to repeat it.
pub(crate) fn run(root: &Path) -> StepResult {
    Step::cargo("format", root, &["fmt", "--all", "--check"]).run()?;
    tidy::run(root)?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features", "--locked"];
    Step::cargo("clippy", root, &clippy).arguments(&deny_warnings()).run()?;
    features(root)?;
    dependencies(root)?;
    // Private items too: they are what the module documentation leads to. Programs have `--help`.
    let doc = ["doc", "--workspace", "--lib", "--no-deps", "--all-features"];
    Step::cargo("documentation", root, &doc)
        .arguments(&["--document-private-items".to_owned()])
        .environment("RUSTDOCFLAGS", DOCUMENTATION_FLAGS)
        .run()?;
    interleavings(root)?;
    fuzz::run(root, &fuzz::FuzzArguments::default())?;
    instructions::run(root, &instructions::InstructionsArguments::default())?;
    simulate::run(root, &simulate::SimulateArguments::minutes(SIMULATION_MINUTES))?;
    test::run(root, &test::TestArguments::default())
}

/// The features of the library that others use alone, each by itself: everything else is built with
/// all of them.
fn features(root: &Path) -> StepResult {
    for features in LIBRARY_FEATURES {
        let name = if features.is_empty() { "no feature" } else { features };
        let clippy = ["clippy", "--package", test::LIBRARY, "--all-targets", "--locked"];
        Step::cargo(&format!("clippy, {name}"), root, &clippy)
            .arguments(&["--features", features].map(str::to_owned))
            .arguments(&deny_warnings())
            .run()?;
    }
    // What is documented without features leads nowhere that needs one.
    let doc = ["doc", "--package", test::LIBRARY, "--lib", "--no-deps"];
    Step::cargo("documentation, no feature", root, &doc)
        .environment("RUSTDOCFLAGS", DOCUMENTATION_FLAGS)
        .run()
}

/// What several cores do to the same memory, in every order that the language allows.
fn interleavings(root: &Path) -> StepResult {
    let test = ["test", "--package", "block-io", "--package", "cache-engine", "--lib", "--release"];
    // Built apart: the flag is for every crate, and would have all of them built again twice.
    let folder = test::target_folder(root).join("loom");
    Step::cargo("interleavings", root, &test)
        .arguments(&["--no-default-features", "interleavings"].map(str::to_owned))
        .environment("RUSTFLAGS", "--cfg loom")
        .environment("CARGO_TARGET_DIR", &folder.to_string_lossy())
        .run()
}

fn deny_warnings() -> Vec<String> {
    ["--", "--deny", "warnings"].map(str::to_owned).to_vec()
}

/// Licences, sources, bans and known vulnerabilities of the dependencies, by `deny.toml`.
fn dependencies(root: &Path) -> StepResult {
    if find_program("cargo-deny").is_none() {
        // Unoptimised on purpose: it is built for one run of a second, and that halves the build.
        let package = format!("cargo-deny@{CARGO_DENY_VERSION}");
        Step::cargo("cargo-deny", root, &["install", "--locked", "--debug", &package]).run()?;
    }
    let deny = ["deny", "--all-features", "check"];
    Step::cargo("licences, sources and bans", root, &deny)
        .arguments(&["licenses", "bans", "sources"].map(str::to_owned))
        .run()?;
    advisories(root)
}

/// The advisory database is a git repository of its own, and a machine that reaches only the
/// package registry cannot fetch it. Known vulnerabilities then go unchecked, and it says so; with
/// the database at hand they fail the run.
fn advisories(root: &Path) -> StepResult {
    let fetch = Step::cargo("advisory database", root, &["deny", "fetch", "db"]);
    if let Err(error) = fetch.run() {
        report::note(&format!("known vulnerabilities are NOT checked here: {error}"));
        return Ok(());
    }
    let check = ["deny", "--all-features", "check", "--disable-fetch", "advisories"];
    Step::cargo("known vulnerabilities", root, &check).run()
}
