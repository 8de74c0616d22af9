//! CRC-64/XZ (reflected polynomial `0xC96C5795D7870F42`, inverted before and after) which goes on from an earlier value.

const POLYNOMIAL: u64 = 0xc96c_5795_d787_0f42;

/// The checksum of what `value` is the checksum of, followed by `data`. The checksum of nothing is zero.
pub fn crc64(value: u64, data: &[u8]) -> u64 {
    let Some((head, tail)) = data.split_first_chunk() else { return short(value, data) };
    // To go on from `value` is to begin anew over data whose first eight bytes are combined with it.
    let mut digest = crc64fast::Digest::new();
    digest.write(&(u64::from_le_bytes(*head) ^ value).to_le_bytes());
    digest.write(tail);
    digest.sum64()
}

/// The same for fewer than eight bytes, bit by bit.
fn short(value: u64, data: &[u8]) -> u64 {
    let bit = |state: u64, _| if state & 1 == 1 { (state >> 1) ^ POLYNOMIAL } else { state >> 1 };
    !data.iter().fold(!value, |state, byte| (0..8).fold(state ^ u64::from(*byte), bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_vectors_in_one_piece_and_in_two() {
        assert_eq!(crc64(0, b""), 0);
        assert_eq!(crc64(0, b"battery"), 0x2be5_5fc6_6a38_1c84);
        assert_eq!(crc64(crc64(0, b"battery"), b" horse"), 0xae76_3109_c119_2ed6);
        assert_eq!(crc64(0, b"battery horse"), 0xae76_3109_c119_2ed6);
    }

    proptest::proptest! {
        #[test]
        fn it_is_the_same_in_any_pieces(data: Vec<u8>, cut: usize) {
            let mut digest = crc64fast::Digest::new();
            digest.write(&data);
            let (a, b) = data.split_at(cut % (data.len() + 1));
            proptest::prop_assert_eq!(crc64(crc64(0, a), b), digest.sum64());
            proptest::prop_assert_eq!(short(0, &data), digest.sum64());
        }
    }
}
