//! Live questions of controllers: the answer is sealed to the asker's key, so that nobody between can read it.

use std::time::Duration;

use dotmac_protocol::frame::{Answer, Question};
use dotmac_runtime::{
    quic::{FrameError, read_frame, write_frame},
    seal::seal,
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use quinn::{Connection, RecvStream, SendStream};

use super::{Link, session::Ended};

/// The context under which answers are sealed.
pub(crate) const ANSWER_CONTEXT: &str = "dotmac/answer/v1";
/// Questions answered at the same time; further ones wait.
const QUESTIONS_MAX: usize = 8;
/// How long a question may take to arrive.
const QUESTION_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of clear text in one piece at most.
const PIECE_BYTES_MAX: usize = 64 * 1024;

pub(super) async fn run(link: &Link, connection: &Connection) -> Ended {
    let mut answering = FuturesUnordered::new();
    loop {
        tokio::select! {
            opened = connection.accept_bi(), if answering.len() < QUESTIONS_MAX => {
                let (send, receive) = opened?;
                answering.push(answer(link, send, receive));
            }
            Some(answered) = answering.next() => {
                if let Err(error) = answered {
                    tracing::debug!(%error, "a question was not answered to its end");
                }
            }
        }
    }
}

async fn answer(
    link: &Link,
    mut send: SendStream,
    mut receive: RecvStream,
) -> Result<(), FrameError> {
    let asked = tokio::time::timeout(QUESTION_PATIENCE, read_frame::<Question>(&mut receive)).await;
    let Ok(Some(question)) = asked.unwrap_or(Ok(None)) else {
        return Ok(());
    };
    let seal_to = *question.seal_to();
    match link.parts.host.answer(question).await {
        Err(reason) => write_frame(&mut send, &Answer::Refused { reason }).await?,
        Ok(mut pieces) => {
            loop {
                let text = tokio::select! {
                    text = pieces.recv() => text,
                    // The asker has had enough.
                    _ = send.stopped() => return Ok(()),
                };
                let Some(text) = text else { break };
                for piece in text.as_bytes().chunks(PIECE_BYTES_MAX) {
                    let sealed = seal(&seal_to, ANSWER_CONTEXT, piece, &link.parts.entropy);
                    let answer = match sealed {
                        Ok(sealed) => Answer::Piece(sealed),
                        Err(error) => {
                            let reason = error.to_string();
                            write_frame(&mut send, &Answer::Refused { reason }).await?;
                            return Ok(());
                        }
                    };
                    write_frame(&mut send, &answer).await?;
                }
            }
        }
    }
    // A stream that was reset already needs no end.
    drop(send.finish());
    Ok(())
}
