//! What a kernel was built with: its `.config`. `CONFIG_IKCONFIG` puts that, compressed, between
//! two marks into the program; distributions have it as a file beside.

use std::collections::BTreeMap;
use std::io::Read;

/// Stands before the compressed text. Linux kernel/configs.c
const START: &[u8] = b"IKCFG_ST";

/// The options that are set to `y` or `m`.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// Whether each is a module, by name.
    options: BTreeMap<String, bool>,
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
        Self::of_compressed(&program[start + START.len()..])
    }

    /// Reads the text as gzip has it, with anything behind.
    ///
    /// # Errors
    /// When it is none.
    pub fn of_compressed(bytes: &[u8]) -> Result<Self, String> {
        let mut text = String::new();
        flate2::read::GzDecoder::new(bytes)
            .read_to_string(&mut text)
            .map_err(|error| format!("its configuration cannot be read: {error}"))?;
        Ok(Self::of_text(&text))
    }

    /// Reads lines such as `CONFIG_NVME_TCP=m`, and above them `# Linux/um 7.2.13 Kernel …`.
    pub fn of_text(text: &str) -> Self {
        let option = |line: &str| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            ["y", "m"].contains(&value).then(|| (name.to_owned(), value == "m"))
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

    /// The same without modules: there are none to load.
    pub fn without_modules(mut self) -> Self {
        self.options.retain(|_, is_module| !*is_module);
        self
    }

    /// Whether an option, without `CONFIG_`, is set.
    pub fn has(&self, option: &str) -> bool {
        self.options.contains_key(option)
    }

    /// Whether what the option stands for has to be loaded.
    pub fn is_module(&self, option: &str) -> bool {
        self.options.get(option).copied().unwrap_or_default()
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
        assert_eq!(["B", "C", "D"].map(|it| configuration.is_module(it)), [false, true, false]);
        let built_in = configuration.without_modules();
        assert_eq!(["B", "C"].map(|option| built_in.has(option)), [true, false]);
        assert!(Configuration::of_program(&program[..40]).is_err());
    }
}
