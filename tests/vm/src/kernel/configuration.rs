//! What a kernel was built with, read from the kernel itself: `CONFIG_IKCONFIG` puts its `.config`,
//! compressed, between two marks into the program.

use std::collections::BTreeSet;
use std::io::Read;

/// Stands before the compressed text. Linux kernel/configs.c
const START: &[u8] = b"IKCFG_ST";

/// The options that are set to `y` or `m`.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    options: BTreeSet<String>,
    version: (u32, u32),
}

impl Configuration {
    /// Reads it out of an uncompressed kernel.
    ///
    /// # Errors
    /// When the kernel has none inside, or it cannot be read.
    pub fn of_program(program: &[u8]) -> Result<Self, String> {
        let start = program.windows(START.len()).position(|window| window == START);
        let start = start.ok_or("says nothing of its configuration (CONFIG_IKCONFIG)")?;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&program[start + START.len()..])
            .read_to_string(&mut text)
            .map_err(|error| format!("its configuration cannot be read: {error}"))?;
        Ok(Self::of_text(&text))
    }

    /// Reads lines such as `CONFIG_NVME_TCP=m`, and above them `# Linux/um 7.2.13 Kernel …`.
    pub fn of_text(text: &str) -> Self {
        let option = |line: &str| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            ["y", "m"].contains(&value).then(|| name.to_owned())
        };
        let title = text.lines().find_map(|line| line.strip_prefix("# Linux/"));
        let version = title.and_then(|title| title.split(' ').nth(1)).unwrap_or_default();
        let mut numbers = version.split('.').map_while(|number| number.parse().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Self { options: text.lines().filter_map(option).collect(), version }
    }

    /// Whether the kernel is of this version, 6.15, or a later one.
    pub fn is_since(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }

    /// Whether an option, without `CONFIG_`, is set.
    pub fn has(&self, option: &str) -> bool {
        self.options.contains(option)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let configuration = Configuration::of_text("#\n# Linux/um 6.15.3 Kernel Configuration\n#");
        let is_since = [(6, 9), (6, 15), (6, 16), (7, 0)]
            .map(|(major, minor)| configuration.is_since(major, minor));
        assert_eq!(is_since, [true, true, false, false]);
    }

    #[test]
    fn options_are_found_inside_of_a_kernel() {
        let text = "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=m\nCONFIG_D=\"y\"\n";
        let mut compressed = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        compressed.write_all(text.as_bytes()).unwrap();
        let compressed = compressed.finish().unwrap();
        let program = [b"ELF...", START, &compressed, b"IKCFG_ED..."].concat();
        let configuration = Configuration::of_program(&program).unwrap();
        let is_set = ["A", "B", "C", "D"].map(|option| configuration.has(option));
        assert_eq!(is_set, [false, true, true, false]);
        assert!(Configuration::of_program(&program[..40]).is_err());
    }
}
