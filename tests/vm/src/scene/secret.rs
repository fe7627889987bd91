//! Secrets for DH-HMAC-CHAP, made by `forebay nvme key`.

use std::path::{Path, PathBuf};

use forebay_tests::program::Program;
use forebay_tests::server::ForebayCommand;
use nvme_fabric::auth;

/// A secret in a file of its own, which goes with it.
pub struct Secret {
    path: PathBuf,
    text: String,
}

impl Secret {
    /// A new one in a file of that name, transformed with `hash`: `sha256`, `sha384`, `sha512`.
    ///
    /// # Panics
    /// When the command does not make it.
    #[track_caller]
    pub fn new(name: &str, hash: &str) -> Self {
        let path = Path::new("/run").join(format!("{name}.secret"));
        let forebay = Program::at(&ForebayCommand::program().expect("the case needs it"));
        let shown = path.display().to_string();
        forebay.run(&["nvme", "key", "--output", &shown, "--hash", hash]);
        let text = std::fs::read_to_string(&path).expect("it was written");
        Self { path, text: text.trim_end().to_owned() }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As kernels take it: `DHHC-1:01:…:`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// As our host takes it.
    ///
    /// # Panics
    /// When our host does not understand what our command wrote.
    #[track_caller]
    pub fn ours(&self) -> auth::Secret {
        auth::Secret::parse(&self.text).expect("well formed")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // It is the machine's memory; where a case failed the machine is not used again.
        let _ = std::fs::remove_file(&self.path);
    }
}
