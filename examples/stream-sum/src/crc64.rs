//! CRC-64/XZ (reflected polynomial `0xC96C5795D7870F42`, inverted before and after) which goes on from an earlier value.

const POLYNOMIAL: u64 = 0xc96c_5795_d787_0f42;

const TABLE: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            remainder = if remainder & 1 == 1 { (remainder >> 1) ^ POLYNOMIAL } else { remainder >> 1 };
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

/// The checksum of what `value` is the checksum of, followed by `data`. The checksum of nothing is zero.
pub fn crc64(value: u64, data: &[u8]) -> u64 {
    let step = |state: u64, byte: &u8| TABLE[usize::from(state as u8 ^ byte)] ^ (state >> 8);
    !data.iter().fold(!value, step)
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
        fn it_agrees_with_another_implementation(data: Vec<u8>, cut: usize) {
            let mut digest = crc64fast::Digest::new();
            digest.write(&data);
            let (a, b) = data.split_at(cut % (data.len() + 1));
            proptest::prop_assert_eq!(crc64(crc64(0, a), b), digest.sum64());
        }
    }
}
