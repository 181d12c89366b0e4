//! Reading ranges: joins chunks into values. It refuses to skip what it cannot read.

use std::{fmt, ops::Range};

use super::{
    Key, ReadError, corrupt, read_value,
    record::{decode_chunk, split_key},
    records::{Records, Walk},
};

/// The values of a range, in order of their keys.
pub struct Scan {
    database: Records,
    records: Option<Walk>,
    last: Option<Key>,
}

impl fmt::Debug for Scan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Scan(after {:?})", self.last)
    }
}

impl Scan {
    pub(super) fn new(database: Records, range: &Range<Key>) -> Self {
        let records = (range.start < range.end).then(|| {
            database.range(range.start.as_bytes().to_vec()..range.end.as_bytes().to_vec())
        });
        Self {
            database,
            records,
            last: None,
        }
    }

    /// The value whose first chunk is at hand; `None` for a further chunk, or when it was removed meanwhile.
    fn value(&mut self, stored: &[u8], bytes: &[u8]) -> Result<Option<(Key, Vec<u8>)>, ReadError> {
        let (key, number) = split_key(stored).ok_or_else(|| corrupt(stored))?;
        if number > 0 {
            let follows = self
                .last
                .as_ref()
                .is_some_and(|last| last.as_bytes() == key);
            return if follows { Ok(None) } else { Err(corrupt(key)) };
        }
        let chunk = decode_chunk(key, number, bytes)?;
        let key = Key::from_bytes(key.to_vec());
        self.last = Some(key.clone());
        if chunk.chunks == 1 {
            return Ok(Some((key, chunk.payload.to_vec())));
        }
        Ok(read_value(&self.database, &key)?.map(|value| (key, value)))
    }
}

impl Iterator for Scan {
    type Item = Result<(Key, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let record = self.records.as_mut()?.next()?;
            let found = match record {
                Ok((stored, bytes)) => self.value(&stored, &bytes),
                Err(error) => Err(ReadError::Database(error)),
            };
            match found {
                Ok(None) => {}
                Ok(Some(value)) => return Some(Ok(value)),
                Err(error) => {
                    self.records = None;
                    return Some(Err(error));
                }
            }
        }
    }
}
