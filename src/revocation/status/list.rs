//! One status list: a status of 1, 2, 4 or 8 bits for each index (draft-ietf-oauth-status-list-21 section 4). Knows
//! nothing of who publishes it.

/// The statuses of many tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct StatusList {
    bits: u8,
    bytes: Box<[u8]>,
}

impl StatusList {
    /// A list of statuses of this many bits; `None` if there are no such lists.
    pub fn new(bits: u8, bytes: Vec<u8>) -> Option<Self> {
        matches!(bits, 1 | 2 | 4 | 8).then(|| Self { bits, bytes: bytes.into() })
    }

    /// The status at this index; `None` beyond the list's end.
    pub fn get(&self, index: u64) -> Option<u8> {
        let per_byte = u64::from(8 / self.bits);
        let byte = self.bytes.get(usize::try_from(index / per_byte).ok()?)?;
        let shift = u8::try_from(index % per_byte).ok()? * self.bits;
        let mask = u8::MAX >> (8 - self.bits);
        Some((byte >> shift) & mask)
    }

    /// How many bytes it takes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::StatusList;

    fn all(bits: u8, bytes: &[u8]) -> Vec<u8> {
        let list = StatusList::new(bits, bytes.to_vec()).unwrap();
        (0..).map_while(|index| list.get(index)).collect()
    }

    /// The examples of the draft's section 4.1 and appendix.
    #[test]
    fn statuses_are_read_from_the_least_significant_bit_up() {
        assert_eq!(all(1, &[0xb9, 0xa3]), [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]);
        assert_eq!(all(2, &[0xc9, 0x44, 0xf9]), [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]);
        assert_eq!(all(4, &[0x21, 0x0f]), [1, 2, 15, 0]);
        assert_eq!(all(8, &[7, 255]), [7, 255]);
    }

    #[test]
    fn what_is_beyond_the_end_has_no_status() {
        let list = StatusList::new(1, vec![0]).unwrap();
        assert_eq!((list.get(7), list.get(8), list.get(u64::MAX)), (Some(0), None, None));
        for bits in [0, 3, 5, 16, 255] {
            assert_eq!(StatusList::new(bits, vec![0]), None, "{bits}");
        }
    }
}
