//! Diffie-Hellman in the groups of RFC 7919, with exponents that take the same time whatever they
//! are.
//!
//! | group | exponent | modular multiplications of an exponentiation |
//! |---|---|---|
//! | ffdhe2048 | 256 bits | 350 of 2048 bits |
//! | ffdhe3072 | 320 bits | 430 of 3072 bits |
//! | ffdhe4096 | 384 bits | 510 of 4096 bits |
//! | ffdhe6144 | 384 bits | 510 of 6144 bits |
//! | ffdhe8192 | 448 bits | 590 of 8192 bits |
//!
//! (A squaring a bit, a multiplication every four, and a table.) Exponents are no shorter than RFC
//! 7919 Appendix A asks for (225 to 400 bits), which is twice the strength of the group.

use std::fmt;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use zeroize::Zeroizing;

use super::primes::{FFDHE2048, FFDHE3072, FFDHE4096, FFDHE6144, FFDHE8192};
use super::{Group, Random};

/// This end's half of an exchange: a secret exponent, good for one transaction.
pub struct KeyPair {
    group: Group,
    exponent: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

/// What both ends have in common afterwards, of the group's length: leading zeros count.
pub struct SharedValue(Zeroizing<Vec<u8>>);

/// A public value that no honest peer sends: 0, 1, p - 1 or above. RFC 7919 §5.1
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPublicValue;

/// The prime of a group, absent for NULL, and the bytes of an exponent.
fn parameters(group: Group) -> Option<(&'static [u8], usize)> {
    match group {
        Group::Null => None,
        Group::Ffdhe2048 => Some((&FFDHE2048, 32)),
        Group::Ffdhe3072 => Some((&FFDHE3072, 40)),
        Group::Ffdhe4096 => Some((&FFDHE4096, 48)),
        Group::Ffdhe6144 => Some((&FFDHE6144, 48)),
        Group::Ffdhe8192 => Some((&FFDHE8192, 56)),
    }
}

/// A big-endian number in as many bits as a group's. Longer ones do not occur.
fn number(bytes: &[u8], bits: u32) -> BoxedUint {
    BoxedUint::from_be_slice(bytes, bits).expect("no longer than the group's numbers")
}

fn power(base: &[u8], exponent: &[u8], prime: &[u8]) -> Zeroizing<Vec<u8>> {
    let bits = prime.len() as u32 * 8;
    // The prime and the base are public, so they may show in the time; the exponent does not.
    let modulus = Odd::new(number(prime, bits)).expect("primes of groups are odd");
    let parameters = BoxedMontyParams::new_vartime(modulus);
    let base = BoxedMontyForm::new(number(base, bits), &parameters);
    let exponent_bits = exponent.len() as u32 * 8;
    let exponent = Zeroizing::new(number(exponent, exponent_bits));
    let result = Zeroizing::new(base.pow_bounded_exp(&exponent, exponent_bits).retrieve());
    Zeroizing::new(result.to_be_bytes().to_vec())
}

impl KeyPair {
    /// A new half; absent for [`Group::Null`].
    pub fn new(group: Group, random: &mut Random) -> Option<Self> {
        let (_, length) = parameters(group)?;
        Self::of_exponent(group, random.bytes(length))
    }

    /// The half of this exponent.
    pub(super) fn of_exponent(group: Group, exponent: Zeroizing<Vec<u8>>) -> Option<Self> {
        let (prime, _) = parameters(group)?;
        let public = power(&[2], &exponent, prime).to_vec();
        Some(Self { group, exponent, public })
    }

    /// The value to be sent, big-endian, of the group's length.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// What this end and the one that sent `public` share.
    ///
    /// # Errors
    /// When `public` gives the secret away or is no number of the group.
    pub fn share(&self, public: &[u8]) -> Result<SharedValue, InvalidPublicValue> {
        let (prime, _) = parameters(self.group).ok_or(InvalidPublicValue)?;
        if public.len() > prime.len() {
            return Err(InvalidPublicValue);
        }
        // Not every peer sends leading zeros.
        let mut padded = vec![0; prime.len() - public.len()];
        padded.extend_from_slice(public);
        let mut one = vec![0; prime.len()];
        let mut largest = prime.to_vec();
        // p is odd: p - 1 differs in the last bit.
        (one[prime.len() - 1], largest[prime.len() - 1]) = (1, prime[prime.len() - 1] - 1);
        if padded <= one || padded >= largest {
            return Err(InvalidPublicValue);
        }
        Ok(SharedValue(power(&padded, &self.exponent, prime)))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.group)
    }
}

impl SharedValue {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SharedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedValue({} bytes)", self.0.len())
    }
}
