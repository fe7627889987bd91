//! The calls into AWS-LC: XTS over memory that Rust never borrows, and HKDF. All of this module
//! that is `unsafe` is here.
//!
//! Why pointers: the library reads and writes a buffer's bytes as the kernel does, so no `&[u8]`
//! has to be vouched for. If a kernel operation changed the bytes meanwhile, the result would be
//! noise, as it would be on the device; nothing in the library branches on them or takes them for
//! an index or a length.
//!
//! Absent: what a data unit and its tweak are.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use aws_lc_sys as aws_lc;
use block_io::Buffer;

use super::KEY_LENGTH;

/// A tweak as XTS takes it.
pub(super) type TweakBytes = [u8; 16];

/// The bytes of a buffer, for the library.
#[derive(Clone, Copy)]
pub(super) struct Region<'a> {
    base: *mut u8,
    length: usize,
    buffer: PhantomData<&'a Buffer>,
}

impl<'a> Region<'a> {
    pub(super) fn of(buffer: &'a Buffer) -> Self {
        Self { base: buffer.as_ptr(), length: buffer.len(), buffer: PhantomData }
    }

    pub(super) fn part(self, offset: usize, length: usize) -> Self {
        assert!(offset <= self.length && length <= self.length - offset, "a part within");
        // SAFETY: just checked to be within the buffer's memory.
        Self { base: unsafe { self.base.add(offset) }, length, ..self }
    }

    /// Whether the two have no byte in common, or all of them.
    pub(super) fn is_apart_or_same(self, other: Self) -> bool {
        let distance = self.base.addr().abs_diff(other.base.addr());
        distance == 0 || distance >= self.length.max(other.length)
    }
}

/// A key that was expanded for one direction.
struct Context(NonNull<aws_lc::EVP_CIPHER_CTX>);

impl Context {
    fn allocate() -> Self {
        // SAFETY: takes nothing; gives an initialised context or null.
        let context = unsafe { aws_lc::EVP_CIPHER_CTX_new() };
        Self(NonNull::new(context).expect("memory for a cipher context, as for any allocation"))
    }

    fn as_ptr(&self) -> *mut aws_lc::EVP_CIPHER_CTX {
        self.0.as_ptr()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `EVP_CIPHER_CTX_new` and freed only here. The library overwrites whatever
        // it frees, so the expanded keys are gone.
        unsafe { aws_lc::EVP_CIPHER_CTX_free(self.as_ptr()) }
    }
}

/// The library's three steps of one direction have the same faces in both.
macro_rules! direction {
    ($(#[$documentation:meta])* $name:ident, $initialise:ident, $update:ident) => {
        $(#[$documentation])*
        pub(super) struct $name(Context);

        impl $name {
            pub(super) fn new(key: &[u8; KEY_LENGTH]) -> Self {
                let context = Context::allocate();
                // SAFETY: a live context, a cipher that is a static, no engine, a key of the length
                // that this cipher reads, and no tweak yet.
                let done = unsafe {
                    let cipher = aws_lc::EVP_aes_256_xts();
                    aws_lc::$initialise(
                        context.as_ptr(), cipher, ptr::null_mut(), key.as_ptr(), ptr::null(),
                    )
                };
                assert_eq!(done, 1, "a key of the right length with unequal halves is taken");
                Self(context)
            }

            /// One data unit, of 16 bytes to 16 MiB.
            pub(super) fn unit(&self, tweak: &TweakBytes, from: Region<'_>, to: Region<'_>) {
                assert_eq!(from.length, to.length, "lengths of a data unit");
                let context = self.0.as_ptr();
                let length = i32::try_from(from.length).expect("a data unit is 4 KiB");
                let mut written = 0;
                // SAFETY: the context is alive and has a key; it is changed through `&self`, but it
                // is neither `Send` nor `Sync` and nothing here calls back. The tweak has the 16
                // bytes of this cipher's. Both regions are alive, initialised and `length` long.
                // (Should they overlap, which `LineCipher` refuses, the result is noise.)
                let done = unsafe {
                    aws_lc::$initialise(
                        context, ptr::null(), ptr::null_mut(), ptr::null(), tweak.as_ptr(),
                    ) == 1
                        && aws_lc::$update(context, to.base, &mut written, from.base, length) == 1
                };
                // The library refuses units shorter than 16 bytes or longer than 16 MiB only.
                assert!(done && written == length, "a data unit of {length} bytes is taken");
            }
        }
    };
}

direction! {
    /// A key, ready to encrypt.
    Encryption, EVP_EncryptInit_ex, EVP_EncryptUpdate
}

direction! {
    /// A key, ready to decrypt.
    Decryption, EVP_DecryptInit_ex, EVP_DecryptUpdate
}

/// HKDF-Expand of RFC 5869 §2.3 with SHA-512. There is no need to extract first: the key is
/// uniformly random already (§3.3).
pub(super) fn expand(key: &[u8; KEY_LENGTH], purpose: &[u8], output: &mut [u8]) {
    // SAFETY: every pointer goes with its length, and the hash function is a static.
    let done = unsafe {
        aws_lc::HKDF_expand(
            output.as_mut_ptr(),
            output.len(),
            aws_lc::EVP_sha512(),
            key.as_ptr(),
            key.len(),
            purpose.as_ptr(),
            purpose.len(),
        )
    };
    assert_eq!(done, 1, "up to 255 times 64 bytes can be derived");
}
