//! Frames on QUIC streams: four bytes of length (big endian), then an encoded value. The limit of the value's format is
//! checked before anything is read, and memory grows only with bytes that arrived.

use dotmac_protocol::codec::{self, DecodeError, EncodeError, Format};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use thiserror::Error;

/// Read at once at most, so that a length alone costs no memory.
const READ_STEP_BYTES: usize = 16 * 1024;

/// Why a frame was not read or written. The stream is of no use afterwards.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The other side announced more than its kind may have; nothing of it was read.
    #[error("{kind} of {found} bytes exceeds the limit of {allowed}")]
    TooLarge {
        /// What was expected.
        kind: &'static str,
        /// Announced length in bytes.
        found: usize,
        /// The limit in bytes.
        allowed: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a {kind}")]
    Truncated {
        /// What was expected.
        kind: &'static str,
    },
    /// The bytes are no such value.
    #[error("a frame cannot be decoded")]
    Decode(#[from] DecodeError),
    /// The value is too large to be sent.
    #[error("a frame cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The stream or connection is gone.
    #[error("the stream cannot be read")]
    Read(#[from] ReadError),
    /// The stream or connection is gone, or the other side does not want more.
    #[error("the stream cannot be written")]
    Write(#[from] WriteError),
}

/// Reads one frame; `None` when the stream ended cleanly before it. Waits as long as the connection lives, so put a
/// deadline around it. Not cancel safe: drop the stream when this was dropped halfway.
///
/// # Errors
/// See [`FrameError`].
pub async fn read_frame<T: Format>(stream: &mut RecvStream) -> Result<Option<T>, FrameError> {
    let mut header = [0; 4];
    match fill(stream, &mut header).await? {
        0 => return Ok(None),
        4 => {}
        _ => return Err(FrameError::Truncated { kind: T::KIND }),
    }
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if length > T::BYTES_MAX {
        return Err(FrameError::TooLarge {
            kind: T::KIND,
            found: length,
            allowed: T::BYTES_MAX,
        });
    }
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let start = bytes.len();
        let step = READ_STEP_BYTES.min(length - start);
        bytes.resize(start + step, 0);
        if fill(stream, &mut bytes[start..]).await? < step {
            return Err(FrameError::Truncated { kind: T::KIND });
        }
    }
    Ok(Some(codec::decode(&bytes)?))
}

/// Writes one frame. Returns when the bytes are handed over, not when they arrived. Not cancel safe.
///
/// # Errors
/// See [`FrameError`].
pub async fn write_frame<T: Format>(stream: &mut SendStream, value: &T) -> Result<(), FrameError> {
    let body = codec::encode(value)?;
    let length = u32::try_from(body.len()).map_err(|_| EncodeError::TooLarge {
        kind: T::KIND,
        found: body.len(),
        allowed: T::BYTES_MAX,
    })?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await?;
    Ok(())
}

/// Fills the buffer as far as the stream goes; says how far.
async fn fill(stream: &mut RecvStream, buffer: &mut [u8]) -> Result<usize, ReadError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]).await? {
            Some(read) => filled += read,
            None => break,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use dotmac_protocol::{
        codec::{DecodeError, Format},
        frame::ALPN_AGENT,
    };
    use quinn::Connection;
    use serde::{Deserialize, Serialize};

    use super::{FrameError, read_frame, write_frame};
    use crate::loopback::{Cluster, PATIENCE};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note(Vec<u8>);

    impl Format for Note {
        const KIND: &'static str = "note";
        const VERSION: u8 = 1;
        const BYTES_MAX: usize = 100_000;
    }

    /// As [`Note`], with a limit that a note exceeds.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct SmallNote(Vec<u8>);

    impl Format for SmallNote {
        const KIND: &'static str = "small note";
        const VERSION: u8 = 1;
        const BYTES_MAX: usize = 64;
    }

    async fn connections() -> (Connection, Connection, Cluster) {
        let cluster = Cluster::new();
        let server = cluster.serve(cluster.node(1, 1));
        let client = cluster.client(Some(cluster.agent()), ALPN_AGENT);
        let (accepted, dialled) = cluster.meet(&server, client).await.unwrap();
        (accepted, dialled, cluster)
    }

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_until_the_clean_end() {
        let (accepted, dialled, _cluster) = connections().await;
        let sent = Note(vec![3; 90_000]);
        let (mut send, _receive) = dialled.open_bi().await.unwrap();
        write_frame(&mut send, &sent).await.unwrap();
        write_frame(&mut send, &Note(vec![])).await.unwrap();
        send.finish().unwrap();
        let (_, mut receive) = accepted.accept_bi().await.unwrap();
        assert_eq!(read_frame::<Note>(&mut receive).await.unwrap(), Some(sent));
        assert_eq!(
            read_frame::<Note>(&mut receive).await.unwrap(),
            Some(Note(vec![]))
        );
        assert_eq!(read_frame::<Note>(&mut receive).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_frame_over_its_limit_is_refused_before_it_is_read() {
        let (accepted, dialled, _cluster) = connections().await;

        // Only the length is ever sent, and the stream stays open: waiting for the rest would not end.
        let mut send = dialled.open_uni().await.unwrap();
        send.write_all(&65_u32.to_be_bytes()).await.unwrap();
        let mut receive = accepted.accept_uni().await.unwrap();
        let refused = tokio::time::timeout(PATIENCE, read_frame::<SmallNote>(&mut receive));
        let refused = refused.await.unwrap();
        assert!(
            matches!(
                refused,
                Err(FrameError::TooLarge {
                    kind: "small note",
                    found: 65,
                    allowed: 64
                })
            ),
            "{refused:?}"
        );

        let large = write_frame(&mut send, &SmallNote(vec![0; 65])).await;
        assert!(matches!(large, Err(FrameError::Encode(_))), "{large:?}");
    }

    #[tokio::test]
    async fn a_torn_or_foreign_frame_is_refused() {
        let (accepted, dialled, _cluster) = connections().await;
        for torn in [&[0, 0][..], &[0, 0, 0, 5, 1, 2]] {
            let mut send = dialled.open_uni().await.unwrap();
            send.write_all(torn).await.unwrap();
            send.finish().unwrap();
            let mut receive = accepted.accept_uni().await.unwrap();
            let refused = read_frame::<Note>(&mut receive).await;
            assert!(
                matches!(refused, Err(FrameError::Truncated { kind: "note" })),
                "{refused:?}"
            );
        }
        let mut send = dialled.open_uni().await.unwrap();
        send.write_all(&[0, 0, 0, 2, 9, 0]).await.unwrap();
        let mut receive = accepted.accept_uni().await.unwrap();
        let refused = read_frame::<Note>(&mut receive).await;
        let version = |error: &DecodeError| matches!(error, DecodeError::Version { .. });
        assert!(
            matches!(&refused, Err(FrameError::Decode(error)) if version(error)),
            "{refused:?}"
        );
    }
}
