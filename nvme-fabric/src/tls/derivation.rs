//! From a configured key to the key and the identity that a TLS handshake uses.
//!
//! ```text
//!   configured ─(hash, "HostNQN", host's NQN)─▶ retained ─("nvme-tls-psk", context)─▶ TLS PSK
//!     version 0   context and identity  NVMe0R01 HOSTNQN SUBNQN
//!     version 1   identity  NVMe1R01 HOSTNQN SUBNQN DIGEST    context  01 DIGEST
//!                 DIGEST = base64(HMAC(retained, HOSTNQN " " SUBNQN " NVMe-over-Fabrics"))
//! ```
//! NVMe/TCP Transport 1.1 §3.6.1.3 and §3.6.1.4; version 1 is TP8018's. Both derivations are HKDF
//! with RFC 8446's labels. libnvme until 1.14 framed labels otherwise, and so derived other keys:
//! of version 1 their identities differ too, and they are derived here for who has them in a
//! keyring.
//! Absent: those of version 0, whose identity does not tell which of two keys it is for.

use super::key::Secret;
use super::{ConfiguredPsk, Hash, KeyError};
use crate::auth::derivation::{self, Framing};
use crate::auth::{HashFunction, Names};
use crate::spec::nqn::Nqn;

/// The longest context of a label. RFC 8446 §7.1
const CONTEXT_MAX: usize = 255;

/// The form of a key's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityVersion {
    /// `NVMe0R01 …`: the names only. What SPDK understands.
    Zero,
    /// `NVMe1R01 …`: the names and a digest that depends on the key. What Linux makes.
    One,
}

/// Where a key comes from, in its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Retained,
    Generated,
}

/// A key for TLS between one host and one subsystem, and the identity it goes by.
#[derive(Clone, Debug)]
pub struct TlsPsk {
    identity: String,
    secret: Secret,
}

impl TlsPsk {
    /// The key that `host` and `subsystem` use, from the one that both were configured with.
    ///
    /// # Errors
    /// When the names are too long for version 0, whose identity is at most 255 bytes.
    pub fn retained(
        version: IdentityVersion,
        configured: &ConfiguredPsk,
        host: &Nqn,
        subsystem: &Nqn,
    ) -> Result<Self, KeyError> {
        let framing = Framing::Counted;
        let retained = retained(framing, configured, host.as_str())?;
        derive(version, Origin::Retained, framing, &retained, host.as_str(), subsystem.as_str())
    }

    /// The key that nvme-cli until 2.14 puts into a kernel's keyring by an identity of version 1.
    ///
    /// # Errors
    /// When the names have more than 255 bytes.
    pub fn retained_by_old_libnvme(
        configured: &ConfiguredPsk,
        host: &Nqn,
        subsystem: &Nqn,
    ) -> Result<Self, KeyError> {
        of_old_libnvme(configured, host.as_str(), subsystem.as_str())
    }

    /// The key of secure channel concatenation: from the 32 or 48 bytes that an authentication
    /// has generated. Its identity is of version 1. NVMe Base 2.1 §8.3.4.5.9
    ///
    /// # Errors
    /// When there are neither 32 nor 48 bytes.
    pub fn generated(bytes: &[u8], host: &Nqn, subsystem: &Nqn) -> Result<Self, KeyError> {
        let secret = Secret::of(bytes).ok_or_else(|| {
            KeyError::new(format!("a generated key of {} bytes: must be 32 or 48", bytes.len()))
        })?;
        let (host, subsystem) = (host.as_str(), subsystem.as_str());
        let (version, framing) = (IdentityVersion::One, Framing::Counted);
        derive(version, Origin::Generated, framing, &secret, host, subsystem)
    }

    /// The name that the handshake sends in clear.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The hash, and with it the cipher suite, that it can be used with.
    pub const fn hash(&self) -> Hash {
        self.secret.hash()
    }

    pub(super) fn secret(&self) -> &[u8] {
        self.secret.bytes()
    }
}

fn of_old_libnvme(
    configured: &ConfiguredPsk,
    host: &str,
    subsystem: &str,
) -> Result<TlsPsk, KeyError> {
    let (version, framing) = (IdentityVersion::One, Framing::Bare);
    let retained = retained(framing, configured, host)?;
    derive(version, Origin::Retained, framing, &retained, host, subsystem)
}

/// The retained key: what an end keeps instead of the configured one.
fn retained(framing: Framing, configured: &ConfiguredPsk, host: &str) -> Result<Secret, KeyError> {
    let Some(hash) = configured.retained_by() else {
        return Ok(configured.secret().clone());
    };
    expand_label(hash, framing, configured.secret().bytes(), "HostNQN", host)
}

fn derive(
    version: IdentityVersion,
    origin: Origin,
    framing: Framing,
    input: &Secret,
    host: &str,
    subsystem: &str,
) -> Result<TlsPsk, KeyError> {
    let (hash, number) = (input.hash(), input.hash().number());
    let kind = match origin {
        Origin::Retained => 'R',
        Origin::Generated => 'G',
    };
    let (identity, context) = match version {
        IdentityVersion::Zero => {
            let identity = format!("NVMe0{kind}{number:02} {host} {subsystem}");
            (identity.clone(), identity)
        }
        IdentityVersion::One => {
            let digest = digest(hash, input.bytes(), host, subsystem);
            let identity = format!("NVMe1{kind}{number:02} {host} {subsystem} {digest}");
            (identity, format!("{number:02} {digest}"))
        }
    };
    let secret = expand_label(hash, framing, input.bytes(), "nvme-tls-psk", &context)?;
    Ok(TlsPsk { identity, secret })
}

/// What in an identity of version 1 depends on the key.
fn digest(hash: Hash, key: &[u8], host: &str, subsystem: &str) -> String {
    derivation::digest(function(hash), key, Names::of(host, subsystem))
}

const fn function(hash: Hash) -> HashFunction {
    match hash {
        Hash::Sha256 => HashFunction::Sha256,
        Hash::Sha384 => HashFunction::Sha384,
    }
}

/// HKDF-Extract without salt, then HKDF-Expand-Label to the hash's length. RFC 8446 §7.1
fn expand_label(
    hash: Hash,
    framing: Framing,
    key: &[u8],
    label: &str,
    context: &str,
) -> Result<Secret, KeyError> {
    if context.len() > CONTEXT_MAX {
        return Err(KeyError::new(format!(
            "\"{context}\" has {} bytes: a TLS key can be derived for at most {CONTEXT_MAX}; use \
             shorter names or identities of version 1",
            context.len()
        )));
    }
    let derived = derivation::expand_label(function(hash), framing, key, label, context)
        .ok_or_else(|| KeyError::new(format!("\"{label}\" with \"{context}\": too long")))?;
    Secret::of(&derived).ok_or_else(|| KeyError::new("a derived key has its hash's length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "nqn.psk-test-host";
    const SUBSYSTEM: &str = "nqn.psk-test-subsys";
    const KEY_256: &str = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";
    const KEY_384: &str = "NVMeTLSkey-1:02:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3\
                           W2LxIcLXVsDn8kXZQ==:";

    fn hexadecimal(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn psk(version: IdentityVersion, key: &str, host: &str, subsystem: &str) -> TlsPsk {
        let configured = ConfiguredPsk::parse(key).unwrap();
        let retained = retained(Framing::Counted, &configured, host).unwrap();
        derive(version, Origin::Retained, Framing::Counted, &retained, host, subsystem).unwrap()
    }

    /// libnvme, test/psk.c, `test_data_identity`.
    #[test]
    fn identities_of_version_1_are_libnvmes() {
        let psk_256 = psk(IdentityVersion::One, KEY_256, HOST, SUBSYSTEM);
        assert_eq!(
            psk_256.identity(),
            "NVMe1R01 nqn.psk-test-host nqn.psk-test-subsys \
             iSbjiStwJ/1TrTvDlt2fjFmzvsytOJelidNnA+X5lEU="
        );
        let psk_384 = psk(IdentityVersion::One, KEY_384, HOST, SUBSYSTEM);
        assert_eq!(
            psk_384.identity(),
            "NVMe1R02 nqn.psk-test-host nqn.psk-test-subsys \
             QhW2+Rp6RzHlNtCslyRxMnwJ11tKKhz8JCAQpQ+XUD8f9td1VeH5h53yz2wKJG1a"
        );
    }

    /// libnvme 1.16, test/psk.c, `test_data_identity_compat`.
    #[test]
    fn identities_of_version_1_are_old_libnvmes_too() {
        let psk = |key| {
            let configured = ConfiguredPsk::parse(key).unwrap();
            of_old_libnvme(&configured, HOST, SUBSYSTEM).unwrap()
        };
        assert_eq!(
            psk(KEY_256).identity(),
            "NVMe1R01 nqn.psk-test-host nqn.psk-test-subsys \
             66GuqV08TsAGII39teWUfwQwizjv06Jy8jOcX3NAAzM="
        );
        assert_eq!(
            psk(KEY_384).identity(),
            "NVMe1R02 nqn.psk-test-host nqn.psk-test-subsys \
             RsKmYJ3nAn1ApjjMloJFbAkLPivONDAX/xW327YBUsn2eGShXSjCZvBaOxscLqmz"
        );
    }

    /// Linux, drivers/nvme/common/tests/auth_kunit.c: generated key, digest, TLS PSK.
    #[test]
    fn digests_and_keys_of_version_1_are_the_linux_kernels() {
        let vectors: [(&str, &str, &str); 2] = [
            (
                "1733c59fa7f48fcf37f5f26fc4ff0268ad4f78e030f4f3b0bfd1d47e7bb1447a",
                "NVMe1G01 hostnqn subsysnqn OldoKuTfKddMuyCznAZojkWD7P4D9/AtzDzLimtOxqI=",
                "3c17da628474a04d2247c4cab47968c915388193f7c071bd9489cc3666cd7cc8",
            ),
            (
                "f14b2dd3234c459694d3bc63f8968bd6b37c2c6de849e22e11874900 1ce4bbe8640b9e3a748cb11c\
                 e4b1d71d359cce39",
                "NVMe1G02 hostnqn subsysnqn \
                 cffMWk8TSS7HOQebjgYEIkrPrjWPV4JE5cdPB8WhEvY4JBW5YynKyv66XscN4A9n",
                "2774753233537b3fa50eb7d16a8e43457d85f4906c005b2236616c5d80939d0898fff15bb8b77119\
                 d2be0aac423e7590",
            ),
        ];
        for (generated, identity, expected) in vectors {
            let digits: Vec<u8> = generated.bytes().filter(|byte| *byte != b' ').collect();
            let bytes: Vec<u8> = digits
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            let secret = Secret::of(&bytes).unwrap();
            let (version, framing) = (IdentityVersion::One, Framing::Counted);
            let (host, subsystem) = ("hostnqn", "subsysnqn");
            let psk = derive(version, Origin::Generated, framing, &secret, host, subsystem);
            let psk = psk.unwrap();
            assert_eq!(psk.identity(), identity);
            assert_eq!(hexadecimal(psk.secret()), expected);
        }
    }
    /// The names of the specification's example; the numbers are Python's `hmac` applied to
    /// RFC 5869 and RFC 8446 §7.1, as no public vector has them.
    #[test]
    fn keys_of_version_0_take_the_whole_identity_as_context() {
        let host = "nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        let subsystem = "nqn.2014-08.org.nvmexpress:uuid:36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2";
        let configured = ConfiguredPsk::parse(KEY_256).unwrap();
        assert_eq!(
            hexadecimal(retained(Framing::Counted, &configured, host).unwrap().bytes()),
            "f0af1bc718d4f23bdd7c1683a3d79bd953ea789d106a0f5207bb574bbe5446ce"
        );
        let psk = psk(IdentityVersion::Zero, KEY_256, host, subsystem);
        assert_eq!(psk.identity(), format!("NVMe0R01 {host} {subsystem}"));
        assert_eq!(
            hexadecimal(psk.secret()),
            "8e981666c96a88ef69f6e6a0460ff77ba9039e3d38cbdeee264c4de09d75d246"
        );
    }

    #[test]
    fn a_key_without_hash_is_its_own_retained_key() {
        let configured = ConfiguredPsk::parse(KEY_256).unwrap().without_hash();
        assert_eq!(retained(Framing::Counted, &configured, HOST).unwrap(), *configured.secret());
        let hashed = psk(IdentityVersion::Zero, KEY_256, HOST, SUBSYSTEM);
        let plain = psk(IdentityVersion::Zero, &configured.to_interchange(), HOST, SUBSYSTEM);
        assert_eq!(plain.identity(), hashed.identity());
        assert_ne!(plain.secret(), hashed.secret());
    }

    #[test]
    fn names_too_long_for_version_0_are_refused_and_told() {
        let configured = ConfiguredPsk::parse(KEY_256).unwrap();
        let name = |letter: &str| Nqn::new(&format!("nqn.2014-08.x:{}", letter.repeat(130)));
        let (host, subsystem) = (name("h").unwrap(), name("s").unwrap());
        let make = |version| TlsPsk::retained(version, &configured, &host, &subsystem);
        let error = make(IdentityVersion::Zero).unwrap_err().to_string();
        assert!(error.contains("298 bytes") && error.contains("version 1"), "{error}");
        assert!(make(IdentityVersion::One).is_ok());
    }
}
