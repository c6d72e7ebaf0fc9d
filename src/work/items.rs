//! The many parts of a job, packed: the facts of a sweep, the prompts of completions.
//!
//! A sweep may have a million facts. As messages they would take a dozen allocations each; here
//! they are the serialised bytes of a message whose field 1 repeats them, and where each begins.

use bytes::{Buf, Bytes};
use prost::Message;

/// Most bytes of a list: positions are kept in 32 bits.
pub const LARGEST: usize = u32::MAX as usize;

/// Serialised messages (or strings) in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items {
    bytes: Bytes,
    /// Where the bytes of each begin, and one past its end.
    spans: Vec<(u32, u32)>,
}

/// Why bytes are not a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes are no serialised message.
    #[error("it is not a serialised message with field 1 repeated: byte {0} cannot be read")]
    At(usize),
    /// An item has no bytes.
    #[error("item {0} is empty: leave it out")]
    Empty(usize),
    /// There are too many bytes.
    #[error("it has {0} bytes: {LARGEST} at most")]
    TooLarge(usize),
}

impl Items {
    /// The items of a message whose field 1 repeats them. Other fields are not looked at.
    pub fn of(message: &impl Message) -> Self {
        // A message's own bytes are never malformed, and never larger than memory lets them be.
        Self::read(message.encode_to_vec().into(), true).unwrap_or_default()
    }

    /// The items of a serialised message whose field 1 repeats them. Each must have some bytes, so
    /// that what is kept of it is in proportion to them.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        Self::read(bytes, false)
    }

    fn read(bytes: Bytes, empty: bool) -> Result<Self, Malformed> {
        if bytes.len() > LARGEST {
            return Err(Malformed::TooLarge(bytes.len()));
        }
        let mut spans = Vec::new();
        let mut rest = &bytes[..];
        while rest.has_remaining() {
            let at = bytes.len() - rest.len();
            let malformed = Malformed::At(at);
            let key = varint(&mut rest).ok_or(malformed)?;
            let length = match key & 7 {
                0 => {
                    varint(&mut rest).ok_or(malformed)?;
                    0
                }
                1 => 8,
                2 => varint(&mut rest).ok_or(malformed)?,
                5 => 4,
                _ => return Err(malformed),
            };
            let begin = bytes.len() - rest.len();
            let length = usize::try_from(length).map_err(|_| malformed)?;
            rest = rest.get(length..).ok_or(malformed)?;
            if key == (1 << 3 | 2) {
                if length == 0 && !empty {
                    return Err(Malformed::Empty(spans.len()));
                }
                spans.push((begin as u32, (begin + length) as u32));
            }
        }
        spans.shrink_to_fit();
        Ok(Self { bytes, spans })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The bytes of one.
    pub fn get(&self, n: usize) -> Option<&[u8]> {
        let &(begin, end) = self.spans.get(n)?;
        self.bytes.get(begin as usize..end as usize)
    }

    /// One as a message; none when there is no such item or it is not of that type.
    pub fn message<M: Message + Default>(&self, n: usize) -> Option<M> {
        M::decode(self.get(n)?).ok()
    }

    /// All that are messages of this type, in order.
    pub fn messages<M: Message + Default>(&self) -> impl Iterator<Item = M> {
        (0..self.len()).filter_map(|n| self.message(n))
    }

    /// One as a string.
    pub fn text(&self, n: usize) -> Option<&str> {
        std::str::from_utf8(self.get(n)?).ok()
    }

    /// The serialised list.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::proto::v1;

    fn facts(count: usize) -> v1::FactList {
        let fact = |n| v1::Fact {
            prompt: format!("the capital of country {n} is"),
            subject: format!("country {n}"),
            id: (n % 2 == 0).then(|| "x".repeat(n)),
            ..Default::default()
        };
        v1::FactList {
            facts: (0..count).map(fact).collect(),
        }
    }

    #[test]
    fn every_item_comes_out_as_it_went_in() {
        let list = facts(300);
        let items = Items::of(&list);
        assert_eq!(items.len(), 300);
        for (n, fact) in list.facts.iter().enumerate() {
            assert_eq!(items.message::<v1::Fact>(n).as_ref(), Some(fact));
        }
        assert_eq!(items.get(300), None);
        assert_eq!(Items::parse(items.bytes().clone()).unwrap(), items);
        assert!(Items::of(&facts(0)).is_empty());
    }

    #[test]
    fn an_item_of_no_bytes_is_refused_at_the_first() {
        let one = Bytes::from(facts(1).encode_to_vec());
        let bytes = [&one[..], &[1 << 3 | 2, 0, 1 << 3 | 2, 0]].concat();
        assert_eq!(Items::parse(bytes.into()), Err(Malformed::Empty(1)));
    }

    #[test]
    fn fields_of_later_versions_are_passed_over() {
        let mut bytes = facts(2).encode_to_vec();
        bytes.extend([9 << 3, 200, 1]); // a number
        bytes.extend([10 << 3 | 2, 3, 1, 2, 3]); // a string
        bytes.extend([11 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0]); // eight bytes
        assert_eq!(Items::parse(bytes.into()).unwrap().len(), 2);
    }

    #[test]
    fn bytes_that_are_no_list_are_refused_with_the_place() {
        let good = facts(1).encode_to_vec();
        for cut in 1..good.len() {
            let cut = Bytes::copy_from_slice(&good[..cut]);
            assert_eq!(Items::parse(cut), Err(Malformed::At(0)));
        }
        assert_eq!(
            Items::parse(Bytes::from_static(&[0xff; 11])),
            Err(Malformed::At(0))
        );
        assert_eq!(
            Items::parse(Bytes::from_static(&[1 << 3 | 3])),
            Err(Malformed::At(0))
        );
    }
}
