//! The two text alphabets of CIDs: base32 (RFC 4648, lower case, no padding) and base58 (the Bitcoin alphabet).
//!
//! Both are written for inputs of a few dozen bytes and are strict: one byte string has exactly one text.

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Text of `bytes` in base32, lower case, without padding.
pub(crate) fn base32_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut bits_count) = (0u32, 0u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        bits_count += 8;
        while bits_count >= 5 {
            bits_count -= 5;
            text.push(char::from(BASE32[(bits >> bits_count) as usize & 31]));
        }
        bits &= (1 << bits_count) - 1;
    }
    if bits_count > 0 {
        text.push(char::from(BASE32[(bits << (5 - bits_count)) as usize & 31]));
    }
    text
}

/// Bytes of a base32 text; `None` for a foreign character, an impossible length or stray trailing bits.
pub(crate) fn base32_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut bits_count) = (0u32, 0u32);
    for character in text.bytes() {
        let digit = BASE32.iter().position(|&known| known == character)?;
        bits = (bits << 5) | digit as u32;
        bits_count += 5;
        if bits_count >= 8 {
            bits_count -= 8;
            bytes.push((bits >> bits_count) as u8);
            bits &= (1 << bits_count) - 1;
        }
    }
    (bits_count < 5 && bits == 0).then_some(bytes)
}

/// Text of `bytes` in base58. Quadratic in the length: meant for hashes.
pub(crate) fn base58_encode(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    // Digits, least significant first.
    let mut digits: Vec<u8> = Vec::with_capacity(bytes.len() * 138 / 100 + 1);
    for byte in &bytes[zeros..] {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    let leading = std::iter::repeat_n('1', zeros);
    leading.chain(digits.iter().rev().map(|&digit| char::from(BASE58[usize::from(digit)]))).collect()
}

/// Bytes of a base58 text; `None` for a foreign character. Quadratic in the length: bound the text first.
pub(crate) fn base58_decode(text: &str) -> Option<Vec<u8>> {
    let zeros = text.bytes().take_while(|&character| character == b'1').count();
    // Bytes, least significant first.
    let mut bytes: Vec<u8> = Vec::with_capacity(text.len());
    for character in text.bytes().skip(zeros) {
        let mut carry = BASE58.iter().position(|&known| known == character)? as u32;
        for byte in &mut bytes {
            carry += u32::from(*byte) * 58;
            *byte = carry as u8;
            carry >>= 8;
        }
        while carry > 0 {
            bytes.push(carry as u8);
            carry >>= 8;
        }
    }
    bytes.extend(std::iter::repeat_n(0, zeros));
    bytes.reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base32_agrees_with_the_examples_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(base32_encode(bytes.as_bytes()), text);
            assert_eq!(base32_decode(text).expect(text), bytes.as_bytes());
        }
    }

    #[test]
    fn base58_agrees_with_the_published_examples() {
        for (bytes, text) in [
            ("", ""),
            ("61", "2g"),
            ("626262", "a3gV"),
            ("516b6fcd0f", "ABnLTmg"),
            ("00000000000000000000", "1111111111"),
            ("00eb15231dfceb60925886b67d065299925915aeb172c06647", "1NS17iag9jJgTHD1VXjvLCEnZuQ3rJDE9L"),
        ] {
            let bytes = hex::decode(bytes).expect("hex");
            assert_eq!(base58_encode(&bytes), text);
            assert_eq!(base58_decode(text).expect(text), bytes);
        }
    }

    #[test]
    fn texts_that_no_bytes_have_are_refused() {
        for text in ["m", "mz=", "MZ", "mz1", "mzx", "mr", "mzxw6y"] {
            assert_eq!(base32_decode(text), None, "{text}");
        }
        for text in ["0", "O", "I", "l", "a b"] {
            assert_eq!(base58_decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_byte_string_survives_both_alphabets(bytes in prop::collection::vec(any::<u8>(), 0..48)) {
            prop_assert_eq!(base32_decode(&base32_encode(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(base58_decode(&base58_encode(&bytes)), Some(bytes));
        }
    }
}
