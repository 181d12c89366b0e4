//! Keys and batches: what is written at once or not at all.

use std::ops::Range;

use super::record::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Which part of the product a key belongs to: the first byte of it. Never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Area {
    /// The engine's own.
    Engine = 0,
    /// Single values of Raft: vote, committed, purged.
    Raft = 1,
    /// Log entries by index.
    Log = 2,
    /// Facts by stream and sequence.
    Facts = 3,
    /// The last fact of each stream.
    Heads = 4,
    /// What is known about the other controllers.
    Peers = 5,
}

/// A key: an area, then parts. No key may be the beginning of another one; parts of variable length carry theirs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Vec<u8>);

impl Key {
    /// The first key of an area.
    #[must_use]
    pub fn of(area: Area) -> Self {
        Self(vec![area as u8])
    }

    /// Appends a number, ordered.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends a text with its length.
    ///
    /// # Panics
    /// When the text is longer than 112 bytes: callers' names are limited.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        assert!(text.len() <= 112, "a part of a key has at most 112 bytes");
        self.0
            .push(u8::try_from(text.len()).expect("checked above"));
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// The smallest key behind all that start with this one.
    #[must_use]
    pub fn end(mut self) -> Self {
        while let Some(last) = self.0.pop() {
            if last < u8::MAX {
                self.0.push(last + 1);
                break;
            }
        }
        self
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// One change.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Put(Key, Vec<u8>),
    PutFresh(Key, Vec<u8>),
    Remove(Key),
    RemoveRange(Range<Key>),
}

/// Changes that become durable together, in the order given.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(super) changes: Vec<Change>,
    pub(super) bytes: usize,
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores a value.
    ///
    /// # Panics
    /// When the value exceeds [`VALUE_BYTES_MAX`]: callers' formats are limited below it.
    pub fn put(&mut self, key: Key, value: Vec<u8>) {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value has at most 2 MiB");
        assert!(key.0.len() <= KEY_BYTES_MAX, "a key has at most 128 bytes");
        self.bytes += key.0.len() + value.len();
        self.changes.push(Change::Put(key, value));
    }

    /// Stores a value where nothing larger can be: under a key that holds none, or one of a single chunk (some 7 KiB). Nobody
    /// then has to look for the chunks of an older value.
    ///
    /// # Panics
    /// As [`Self::put`].
    pub fn put_fresh(&mut self, key: Key, value: Vec<u8>) {
        self.put(key, value);
        if let Some(Change::Put(key, value)) = self.changes.pop() {
            self.changes.push(Change::PutFresh(key, value));
        }
    }

    /// Removes a value, if there.
    pub fn remove(&mut self, key: Key) {
        self.bytes += key.0.len();
        self.changes.push(Change::Remove(key));
    }

    /// Removes all values of a half-open range.
    pub fn remove_range(&mut self, range: Range<Key>) {
        self.bytes += range.start.0.len() + range.end.0.len();
        self.changes.push(Change::RemoveRange(range));
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of its keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{Area, Key};

    #[test]
    fn keys_sort_by_area_then_number() {
        let keys = [
            Key::of(Area::Raft).text("vote"),
            Key::of(Area::Log).number(1),
            Key::of(Area::Log).number(256),
            Key::of(Area::Log).end(),
        ];
        assert!(keys.is_sorted());
    }

    #[test]
    fn a_stream_is_never_inside_anothers_range() {
        let range = Key::of(Area::Facts).text("ab")..Key::of(Area::Facts).text("ab").end();
        assert!(range.contains(&Key::of(Area::Facts).text("ab").number(u64::MAX)));
        assert!(!range.contains(&Key::of(Area::Facts).text("abc").number(0)));
        assert!(!range.contains(&Key::of(Area::Facts).text("a").number(0)));
    }
}
