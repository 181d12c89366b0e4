//! A State as it lies in a snapshot file: its version, then its bytes, read and written in pieces. It knows every version
//! that was ever written.

use std::io::{self, Read, Write};

use dotmac_domain::{
    State,
    state::{Written, v1},
};
use dotmac_protocol::codec::{self, DecodeError, Format};

use super::StateMachineError;
use crate::{
    raft::types::{Meta, SnapshotHeader},
    storage::snapshots::SnapshotFile,
};

/// Bytes of a State at most.
const STATE_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024 - 1;

/// What a snapshot file covers.
pub(crate) fn read_meta(file: &SnapshotFile) -> Result<Meta, StateMachineError> {
    Ok(codec::decode::<SnapshotHeader>(file.header())?.0)
}

/// The State in a snapshot file. Blocks.
pub(crate) fn read_state(file: &SnapshotFile) -> Result<State, StateMachineError> {
    decode_state(&mut file.body()?)
}

/// Reads a State's encoded form, of this version or an older one, to its end. Blocks.
pub(crate) fn decode_state(mut body: &mut dyn Read) -> Result<State, StateMachineError> {
    let malformed = |error: &dyn std::fmt::Display| StateMachineError::State(error.to_string());
    let mut version = [0; 1];
    body.read_exact(&mut version)
        .map_err(|error| malformed(&error))?;
    let config = bincode::config::standard().with_limit::<STATE_BYTES_MAX>();
    let state = match version {
        [v1::State::VERSION] => {
            bincode::serde::decode_from_std_read::<v1::State, _, _>(&mut body, config)
                .map(State::from)
        }
        [State::VERSION] => bincode::serde::decode_from_std_read(&mut body, config),
        [found] => {
            return Err(StateMachineError::Decode(DecodeError::Version {
                kind: State::KIND,
                found: Some(found),
                expected: State::VERSION,
            }));
        }
    };
    let state = state.map_err(|error| malformed(&error))?;
    match body.read(&mut version) {
        Ok(0) => Ok(state),
        Ok(_) => Err(malformed(&"bytes are left over")),
        Err(error) => Err(malformed(&error)),
    }
}

/// Writes the State's encoded form: what `State::to_bytes` gives, without ever being whole in memory.
pub(crate) fn write_state(state: &State, body: &mut dyn Write) -> io::Result<()> {
    match state.written() {
        Written::V1(state) => write_as(&*state, body),
        Written::V2(state) => write_as(state, body),
    }
}

fn write_as<T: Format>(state: &T, mut body: &mut dyn Write) -> io::Result<()> {
    body.write_all(&[T::VERSION])?;
    bincode::serde::encode_into_std_write(state, &mut body, bincode::config::standard())
        .map_err(io::Error::other)?;
    Ok(())
}
