//! Header fields of HTTP/2 (RFC 7541), also of a connection whose beginning nobody saw.
//!
//! A field may be named by its place in a table that both sides build up from the fields that were sent before. Places are
//! counted from the newest entry on, so that what was added since the listening began is known whatever was there before;
//! a field from before stays open until it is spelt out again. Entries that the two sides have dropped aren't named by
//! anyone, which is why their bookkeeping of sizes need not be followed.

mod statics;

use std::collections::VecDeque;
use std::sync::Arc;

use loona_hpack::huffman::HuffmanDecoder;

pub(super) use self::statics::{STATIC, STATIC_ENTRIES};

/// Bytes of entries that are kept at most; the two sides seldom keep more than 4 KiB.
const TABLE_BYTES: usize = 64 * 1024;
/// Between the places of entries before and after some were missed.
const GAP: i64 = 1 << 40;
/// What an entry costs beside its text.
const ENTRY_OVERHEAD: usize = 32;
/// The longest text of one name or value.
const MAX_TEXT: usize = 64 * 1024;

/// A header field; what isn't known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Option<Arc<[u8]>>,
    pub(super) value: Option<Arc<[u8]>>,
    /// Of a field that isn't known: which of all entries ever added it is, counted from the first one that was seen. On one
    /// connection the same place is the same field.
    pub(super) place: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HpackError {
    #[error("the block ends within a field")]
    Truncated,
    #[error("a number or a text is too large")]
    TooLarge,
    #[error("a field has a place that is in no table")]
    NoEntry,
    #[error("a text isn't coded as it says")]
    Huffman,
}

/// One direction of a connection.
pub(super) struct Decoder {
    /// The newest one first.
    entries: VecDeque<Field>,
    bytes: usize,
    /// The place of the next entry.
    next: i64,
    /// There may be entries behind those that are known.
    is_partial: bool,
    huffman: HuffmanDecoder,
}

impl Decoder {
    /// Of a connection that was there before.
    pub(super) fn joined() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            next: 0,
            is_partial: true,
            huffman: HuffmanDecoder::new(),
        }
    }

    /// The connection has just begun: there is no entry yet.
    pub(super) fn begin(&mut self) {
        self.forget();
        self.is_partial = false;
    }

    /// Some blocks were missed: how many entries were added isn't known.
    pub(super) fn forget(&mut self) {
        self.entries.clear();
        self.bytes = 0;
        self.next = self.next.saturating_add(GAP);
        self.is_partial = true;
    }

    /// The fields of a whole block.
    ///
    /// # Errors
    ///
    /// When this can't be such a block. The table is of no use any more then.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, HpackError> {
        let mut rest = block;
        let mut fields = Vec::new();
        while let Some(&first) = rest.first() {
            if first & 0x80 != 0 {
                let place = integer(&mut rest, 7)?;
                fields.push(self.entry(place)?);
            } else if first & 0x40 != 0 {
                let field = self.literal(&mut rest, 6)?;
                self.insert(field.clone());
                fields.push(field);
            } else if first & 0x20 != 0 {
                // A new size of the table.
                integer(&mut rest, 5)?;
            } else {
                fields.push(self.literal(&mut rest, 4)?);
            }
        }
        Ok(fields)
    }

    fn literal(&mut self, rest: &mut &[u8], prefix: u32) -> Result<Field, HpackError> {
        let place = integer(rest, prefix)?;
        let name = if place == 0 {
            Some(self.text(rest)?)
        } else {
            self.entry(place)?.name
        };
        let value = Some(self.text(rest)?);
        Ok(Field {
            name,
            value,
            place: None,
        })
    }

    fn text(&mut self, rest: &mut &[u8]) -> Result<Arc<[u8]>, HpackError> {
        let is_coded = rest.first().ok_or(HpackError::Truncated)? & 0x80 != 0;
        let length = integer(rest, 7)?;
        if length > MAX_TEXT {
            return Err(HpackError::TooLarge);
        }
        let (text, after) = rest.split_at_checked(length).ok_or(HpackError::Truncated)?;
        *rest = after;
        if is_coded {
            let text = self.huffman.decode(text).map_err(|_| HpackError::Huffman)?;
            Ok(text.into())
        } else {
            Ok(text.into())
        }
    }

    fn entry(&self, place: usize) -> Result<Field, HpackError> {
        if let Some((name, value)) = place.checked_sub(1).and_then(|index| STATIC.get(index)) {
            return Ok(Field {
                name: Some(name.as_bytes().into()),
                value: Some(value.as_bytes().into()),
                place: None,
            });
        }
        let index = place.checked_sub(STATIC_ENTRIES + 1).ok_or(HpackError::NoEntry)?;
        match self.entries.get(index) {
            Some(field) => Ok(field.clone()),
            None if self.is_partial => Ok(Field {
                place: i64::try_from(index).ok().map(|index| self.next - 1 - index),
                ..Field::default()
            }),
            None => Err(HpackError::NoEntry),
        }
    }

    fn insert(&mut self, field: Field) {
        self.bytes += field.size();
        self.next = self.next.saturating_add(1);
        self.entries.push_front(field);
        while self.bytes > TABLE_BYTES
            && let Some(oldest) = self.entries.pop_back()
        {
            self.bytes -= oldest.size();
            self.is_partial = true;
        }
    }
}

impl Field {
    fn size(&self) -> usize {
        let length = |text: &Option<Arc<[u8]>>| text.as_ref().map_or(0, |text| text.len());
        length(&self.name) + length(&self.value) + ENTRY_OVERHEAD
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name.as_bytes())
    }

    /// The value as text; `None` where it isn't known.
    pub(super) fn text(&self) -> Option<String> {
        self.value
            .as_deref()
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }
}

/// A number whose first part is in the lower bits of a byte.
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, HpackError> {
    let (&first, mut after) = rest.split_first().ok_or(HpackError::Truncated)?;
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, next) = after.split_first().ok_or(HpackError::Truncated)?;
            after = next;
            // Four bytes more are enough for everything that is sent.
            if shift > 21 {
                return Err(HpackError::TooLarge);
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = after;
    Ok(value)
}

#[cfg(test)]
mod tests;
