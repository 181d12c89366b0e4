//! What is in the opened parts of a backup: the State, the ends of the streams, and the chains of facts, each proven as it
//! is read.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, BufRead as _, BufReader, Read},
};

use dotmac_domain::{State, audit::Fact};
use dotmac_protocol::{
    codec::{self, Format as _},
    digest::Digest,
    record::ChainHead,
};
use dotmac_runtime::causes;
use sha2::{Digest as _, Sha256};

use crate::{
    backup::write::{Head, STATE_DOMAIN, Tee},
    raft::state_machine::{StateMachineError, decode_state},
};

/// Facts that are handed on at once.
const FACTS_AT_ONCE: usize = 512;

fn invalid(detail: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail.into())
}

pub(super) fn read_state(body: &mut dyn Read) -> io::Result<(State, Digest)> {
    let hasher = Sha256::new_with_prefix(STATE_DOMAIN);
    let mut tee = Tee { out: body, hasher };
    let state = decode_state(&mut tee)
        .map_err(|error: StateMachineError| invalid(causes::in_full(&error)))?;
    Ok((state, Digest::from_bytes(tee.hasher.finalize().into())))
}

pub(super) fn read_heads(body: &mut dyn Read, expected: Digest) -> io::Result<Vec<Head>> {
    let mut tee = Tee {
        out: body,
        hasher: Sha256::new(),
    };
    let mut heads = Vec::new();
    let mut reader = BufReader::new(&mut tee);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let head = serde_json::from_str(&line).map_err(|error| invalid(error.to_string()))?;
        heads.push(head);
        line.clear();
    }
    let found = Digest::from_bytes(tee.hasher.finalize().into());
    if found == expected {
        Ok(heads)
    } else {
        Err(invalid(format!(
            "it has digest {found}, the manifest says {expected}"
        )))
    }
}

/// The first stream whose first fact or end the State knows otherwise.
pub(super) fn differing(state: &State, heads: &[Head]) -> Option<String> {
    let listed: BTreeMap<&str, (u64, u64, Digest)> = heads
        .iter()
        .map(|head| (head.stream.as_str(), (head.first, head.last, head.digest)))
        .collect();
    let known: BTreeMap<String, (u64, u64, Digest)> = state
        .streams
        .iter()
        .map(|(stream, head)| {
            let first = state.dropped(stream).sequence + 1;
            (stream.to_string(), (first, head.sequence, head.digest))
        })
        .collect();
    let unlisted = known
        .iter()
        .find(|(stream, end)| listed.get(stream.as_str()) != Some(end));
    let unknown = listed.keys().find(|stream| !known.contains_key(**stream));
    unlisted
        .map(|(stream, _)| stream.clone())
        .or_else(|| unknown.map(|stream| (*stream).to_owned()))
}

/// The chains of facts, proven as they come.
pub(super) struct Chains<F> {
    /// The streams of which facts are left, and where each has come to.
    rest: VecDeque<(Head, ChainHead)>,
    count: u64,
    batch: Vec<Fact>,
    facts: F,
}

impl<F: FnMut(Vec<Fact>) -> io::Result<()>> Chains<F> {
    /// The heads must be those that the State knows ([`differing`]).
    pub(super) fn new(state: &State, heads: Vec<Head>, facts: F) -> Self {
        let dropped: BTreeMap<String, ChainHead> = state
            .streams
            .iter()
            .map(|(stream, _)| (stream.to_string(), state.dropped(stream)))
            .collect();
        let rest = heads.into_iter().filter_map(|head| {
            let before = dropped.get(&head.stream).copied()?;
            (head.first <= head.last).then_some((head, before))
        });
        Self {
            rest: rest.collect(),
            count: 0,
            batch: Vec::new(),
            facts,
        }
    }

    /// Takes one part of facts.
    pub(super) fn take(mut self, body: &mut dyn Read) -> io::Result<Self> {
        let mut length = [0; 4];
        let mut bytes = Vec::new();
        while read_or_end(body, &mut length)? {
            let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
            if length > Fact::BYTES_MAX {
                return Err(invalid(format!("a fact of {length} bytes")));
            }
            bytes.resize(length, 0);
            body.read_exact(&mut bytes)?;
            let fact: Fact = codec::decode(&bytes).map_err(|error| invalid(error.to_string()))?;
            self.follow(&fact)?;
            self.batch.push(fact);
            if self.batch.len() >= FACTS_AT_ONCE {
                (self.facts)(std::mem::take(&mut self.batch))?;
            }
        }
        (self.facts)(std::mem::take(&mut self.batch))?;
        Ok(self)
    }

    fn follow(&mut self, fact: &Fact) -> io::Result<()> {
        let stream = &fact.stream;
        let (head, at) = self
            .rest
            .front_mut()
            .ok_or_else(|| invalid(format!("stream {stream} is in no head")))?;
        let (sequence, previous) = fact
            .link
            .place()
            .map_err(|error| invalid(error.to_string()))?;
        let follows = sequence == fact.sequence
            && sequence == at.sequence + 1
            && previous == at.digest
            && stream.to_string() == head.stream;
        if !follows {
            return Err(invalid(format!(
                "fact {} of stream {stream} does not follow the one before it",
                fact.sequence
            )));
        }
        let digest = fact.link.digest();
        self.count += 1;
        *at = ChainHead { sequence, digest };
        if sequence < head.last {
            return Ok(());
        }
        if digest != head.digest {
            return Err(invalid(format!(
                "stream {stream} ends otherwise than its head says"
            )));
        }
        self.rest.pop_front();
        Ok(())
    }

    pub(super) fn check_end(&self, facts: u64) -> Result<(), String> {
        match self.rest.front() {
            Some((head, _)) => Err(format!("facts of stream {} are missing", head.stream)),
            None if self.count != facts => {
                Err(format!("{} facts, the manifest says {facts}", self.count))
            }
            None => Ok(()),
        }
    }
}

/// Fills a buffer; `false` at the end before its first byte.
fn read_or_end(body: &mut dyn Read, buffer: &mut [u8]) -> io::Result<bool> {
    let (first, rest) = buffer.split_at_mut(1);
    loop {
        match body.read(first) {
            Ok(0) => return Ok(false),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    body.read_exact(rest)?;
    Ok(true)
}
