//! Numbers of variable length, seven bits a byte, the lowest first, as protobuf, CIDs and CARs write them.

/// Longest form in bytes of a number of 63 bits, the largest that CIDs and CARs have.
const SIZE_MAX: usize = 9;

/// Why bytes are not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarintError {
    /// The bytes end within the number.
    Short,
    /// Longer than it needs to be, or too large.
    Malformed,
}

/// Appends `number`.
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number of at most 63 bits off the front of `bytes`. It must be written in the shortest way.
pub(crate) fn take(bytes: &mut &[u8]) -> Result<u64, VarintError> {
    let mut number = 0;
    for (index, &byte) in bytes.iter().take(SIZE_MAX).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(VarintError::Malformed);
            }
            *bytes = &bytes[index + 1..];
            return Ok(number);
        }
    }
    Err(if bytes.len() < SIZE_MAX { VarintError::Short } else { VarintError::Malformed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_shortest_form_of_a_number_is_taken() {
        for (bytes, expected) in [
            (&[0x00][..], Ok(0)),
            (&[0x7f, 0xff], Ok(127)),
            (&[0x80, 0x01], Ok(128)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], Ok((1 << 63) - 1)),
            (&[], Err(VarintError::Short)),
            (&[0x80], Err(VarintError::Short)),
            (&[0x80, 0x00], Err(VarintError::Malformed)),
            (&[0x81, 0x80, 0x00], Err(VarintError::Malformed)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Err(VarintError::Malformed)),
            (&[0x80; 12], Err(VarintError::Malformed)),
        ] {
            assert_eq!(take(&mut &bytes[..]), expected, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn every_number_survives(number in 0..1u64 << 63, rest in prop::collection::vec(any::<u8>(), 0..4)) {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            bytes.extend(&rest);
            let mut left = &bytes[..];
            prop_assert_eq!(take(&mut left), Ok(number));
            prop_assert_eq!(left, &rest[..]);
        }
    }
}
