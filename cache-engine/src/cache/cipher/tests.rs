//! The cipher against the vectors of its standards and against itself.

use super::*;
use block_io::BufferPool;

/// Bytes of hexadecimal digits.
fn bytes<const LENGTH: usize>(digits: &str) -> [u8; LENGTH] {
    assert_eq!(digits.len(), 2 * LENGTH);
    std::array::from_fn(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
}

/// That of the vectors 10 to 14.
fn ieee_key() -> VolumeKey {
    let digits = "2718281828459045235360287471352662497757247093699959574966967627\
                  3141592653589793238462643383279502884197169399375105820974944592";
    VolumeKey::new(&bytes(digits)).unwrap()
}

fn key(seed: u8) -> VolumeKey {
    VolumeKey::new(&std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ seed)).unwrap()
}

fn buffer(bytes: &[u8]) -> Buffer {
    let buffer = BufferPool::heap().allocate(bytes.len());
    buffer.copy_from_slice(bytes);
    buffer
}

fn encrypted(cipher: &LineCipher, volume_offset: u64, plain: &[u8]) -> Vec<u8> {
    let target = buffer(&vec![0xEE; plain.len()]);
    cipher.encrypt(volume_offset, &buffer(plain), &target);
    target.to_vec()
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// IEEE 1619-2018 annex B, XTS-AES-256: vector 10 whole, the ends of the others. Their data units
/// are 512 bytes long, as a volume's last block may be.
#[test]
fn the_vectors_of_the_standard() {
    const VECTOR_10: &str = "\
         1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b5d31e276f8fe4a8d66b3\
         17f9ac683f44680a86ac35adfc3345befecb4bb188fd5776926c49a3095eb108fd1098baec70aaa66999\
         a72a82f27d848b21d4a741b0c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf10000208878914\
         29ca2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0b5781c34803fa754\
         21c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f93ec05c52e0493ef31a12d3d9260f79a289d\
         6a379bc70c50841473d1a8cc81ec583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02\
         469a020a84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1505eb309326d\
         68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae9be69a2ffeceb1bec9de244fbe15992b\
         11b77c040f12bd8f6a975a44a0f90c29a9abc3d4d893927284c58754cce294529f8614dcd2aba991925f\
         edc4ae74ffac6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f645e8b7e\
         9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed43851ad77f16f541dfd269d50d6a5f14\
         fb0aab1cbb4c1550be97f7ab4066193c4caa773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70\
         b9c6e693e148c151";
    let cipher = LineCipher::new(&ieee_key());
    let plain: [u8; 512] = std::array::from_fn(|at| at as u8);
    assert_eq!(encrypted(&cipher, 0xFF * BLOCK_SIZE, &plain), bytes::<512>(VECTOR_10));
    for (block, first, last) in [
        (0xFFFF, "77a31251618a15e6b92d1d66dffe7b50", "e27b42af8100cb9d59cef9645803"),
        (0xFF_FFFF, "e387aaa58ba483afa7e8eb469778317e", "eef52dd6888c309f5a7d712826"),
        (0xFFFF_FFFF, "bf53d2dade78e822a4d949a9bc6766b0", "abb152c4a93411373aaa8220"),
        (0xFF_FFFF_FFFF, "64497e5a831e4a932c09be3e5393376d", "3ad5b0d59631c531f6a0a57b9"),
    ] {
        let found = encrypted(&cipher, block * BLOCK_SIZE, &plain);
        let digits: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(digits.starts_with(first) && digits.ends_with(last), "{block:x}: {digits}");
    }
}

/// NIST CAVP XTSGenAES256.rsp, data unit of 256 bits, count 1: a tweak that is no block's number.
#[test]
fn a_vector_of_the_validation_program() {
    let key = bytes(
        "1ea661c58d943a0e4801e42f4b0947149e7f9f8e3e68d0c7505210bd311a0e7c\
         d6e13ffdf2418d8d1911c004cda58da3d619b7e2b9141e58318eea392cf41b08",
    );
    let tweak = bytes("adf8d92627464ad2f0428e84a9f87564");
    let plain: [u8; 32] = bytes("2eedea52cd8215e1acc647e810bbc3642e87287f8d2e57e36c0a24fbc12a202e");
    let target = buffer(&[0; 32]);
    Encryption::new(&key).unit(&tweak, Region::of(&buffer(&plain)), Region::of(&target));
    let expected: [u8; 32] =
        bytes("cbaad0e2f6cea3f50b37f934d46a9b130b9d54f07e34f36af793e86f73c6d7db");
    assert_eq!(target.to_vec(), expected);
    Decryption::new(&key).unit(&tweak, Region::of(&target), Region::of(&target));
    assert_eq!(target.to_vec(), plain);
}

#[test]
fn every_length_comes_back_and_nothing_beside_it_changes() {
    let cipher = LineCipher::new(&key(1));
    let plain = noise(65_536);
    for length in (512..=65_536).step_by(512) {
        let memory = buffer(&vec![0xEE; length + 1024]);
        let target = memory.slice(512, length);
        cipher.encrypt(BLOCK_SIZE * 77, &buffer(&plain[..length]), &target);
        let text = target.to_vec();
        assert!(text.chunks(16).zip(plain.chunks(16)).all(|(a, b)| a != b), "{length}");
        cipher.decrypt(BLOCK_SIZE * 77, &target);
        assert_eq!(target.to_vec(), plain[..length], "{length}");
        for beside in [memory.slice(0, 512), memory.slice(512 + length, 512)] {
            assert_eq!(beside.to_vec(), [0xEE; 512], "{length}");
        }
    }
    cipher.encrypt(0, &buffer(&[]), &buffer(&[]));
}

#[test]
fn blocks_alone_are_the_same_as_in_a_run_and_in_place_as_elsewhere() {
    let cipher = LineCipher::new(&key(1));
    let plain = noise(5 * 4096 + 1536);
    let volume_offset = 3 * BLOCK_SIZE;
    let whole = encrypted(&cipher, volume_offset, &plain);
    for (block, part) in plain.chunks(4096).enumerate().rev() {
        let at = volume_offset + block as u64 * BLOCK_SIZE;
        let text = &whole[block * 4096..][..part.len()];
        assert_eq!(encrypted(&cipher, at, part), text, "block {block}");
        let alone = buffer(text);
        cipher.decrypt(at, &alone);
        assert_eq!(alone.to_vec(), part, "block {block}");
    }
    let bytes = buffer(&plain);
    cipher.encrypt(volume_offset, &bytes, &bytes);
    assert_eq!(bytes.to_vec(), whole);
}

#[test]
fn a_megabyte_of_zeroes_becomes_noise() {
    let text = encrypted(&LineCipher::new(&key(1)), 0, &vec![0; 1 << 20]);
    let mut parts: Vec<_> = text.chunks_exact(16).collect();
    parts.sort_unstable();
    assert!(parts.windows(2).all(|pair| pair[0] != pair[1]), "16 bytes stand there twice");
    // Each value is there 4096 times, give or take 64: seven times that happens by chance to none.
    let mut counts = [0_u32; 256];
    text.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    assert!(counts.iter().all(|count| count.abs_diff(4096) < 7 * 64), "{counts:?}");
}

#[test]
fn the_same_bytes_differ_by_block_by_key_and_by_volume() {
    let master = key(1);
    let ciphers = [
        LineCipher::new(&master),
        LineCipher::new(&key(2)),
        LineCipher::new(&master.for_volume(&[1; 16], 0)),
        LineCipher::new(&master.for_volume(&[1; 16], 1)),
        LineCipher::new(&master.for_volume(&[1; 16], 256)),
        LineCipher::new(&master.for_volume(&[2; 16], 0)),
    ];
    let plain = noise(4096);
    let mut parts = Vec::new();
    for cipher in &ciphers {
        for block in [0, 1, 2, 1 << 20, (1 << 52) - 1] {
            let text = encrypted(cipher, block * BLOCK_SIZE, &plain);
            // The first and the last parts are made with tweaks that are far from each other.
            parts.extend([text[..16].to_vec(), text[4080..].to_vec()]);
        }
    }
    let mut checks: Vec<_> = ciphers.iter().map(LineCipher::key_check).collect();
    parts.sort_unstable();
    parts.dedup();
    checks.sort_unstable();
    checks.dedup();
    assert_eq!((parts.len(), checks.len()), (ciphers.len() * 5 * 2, ciphers.len()));
}

#[test]
fn a_key_check_is_always_the_same_and_no_part_of_the_key() {
    // Computed apart from this program: HMAC-SHA-512 of the label and a byte 1, cut.
    let expected = bytes::<16>("422fdcb7c1cb49038162da0925ef6612");
    assert_eq!(LineCipher::new(&ieee_key()).key_check(), expected);
    let derived = ieee_key().for_volume(&[7; 16], 0x0102);
    let expected = bytes::<64>(
        "4c93475e28585330a42f3e3dc12f4fa9192bf4efa3671f478944a90095d2fcd1\
         af2a1fc96b4e57963ad031b45ede96a3f9d10ebbe832dbc89c5bff5d33848053",
    );
    assert_eq!(**derived.0, expected);
}

#[test]
fn keys_are_checked_overwritten_and_not_shown() {
    fn is_overwritten<Secret: zeroize::ZeroizeOnDrop>(_: &Secret) {}
    is_overwritten(&*key(1).0);
    let shown = format!("{:?} {:?}", key(1), LineCipher::new(&key(1)));
    assert_eq!(shown, "VolumeKey(not shown) LineCipher(AES-256-XTS)");
    let mut equal = [9; KEY_LENGTH];
    let error = VolumeKey::new(&equal).unwrap_err().to_string();
    assert!(error.contains("two halves are equal"), "{error}");
    equal[KEY_LENGTH - 1] = 8;
    assert!(VolumeKey::new(&equal).is_ok(), "one bit is a difference");
}

#[test]
#[should_panic(expected = "cipher text over a part of its plain text")]
fn cipher_text_over_a_part_of_its_plain_text_panics() {
    let memory = buffer(&[0; 3 * 4096]);
    LineCipher::new(&key(1)).encrypt(0, &memory.slice(0, 8192), &memory.slice(4096, 8192));
}

#[test]
#[should_panic(expected = "offset 512 of encrypted bytes")]
fn a_start_within_a_block_panics() {
    LineCipher::new(&key(1)).decrypt(512, &buffer(&[0; 512]));
}
