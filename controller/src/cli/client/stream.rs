//! Answers that go on for ever, line by line. A line has a limit; how many there are has none.

use std::time::Duration;

use reqwest::Response;

use super::{
    Client,
    address::check_path,
    reading::{Again, Attempt, innermost, read},
    rounds::Rounds,
};
use crate::cli::failure::Failure;

/// Bytes of one line at most.
const LINE_BYTES_MAX: usize = 512 * 1024;

/// The lines of an answer as they come.
#[derive(Debug)]
pub(crate) struct Lines {
    response: Response,
    pending: Vec<u8>,
    /// Bytes of `pending` that hold no line end.
    searched: usize,
}

impl Client {
    /// Opens a stream at the first controller that gives one, with these headers besides the token. A controller that
    /// names another one is not followed there: that one is among ours and is asked in its turn. They may disagree for
    /// a moment after an agent moved, so it takes several rounds.
    ///
    /// # Errors
    /// When a controller refuses, or none answers within the deadline.
    pub(crate) async fn lines(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Lines, Failure> {
        let response = self.stream_with(path, headers).await?;
        Ok(Lines {
            response,
            pending: Vec::new(),
            searched: 0,
        })
    }

    async fn stream_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response, Failure> {
        check_path(path)?;
        let servers = self.servers();
        let mut rounds = Rounds::new(servers, self.access.deadline_ms, self.access.voice.as_ref());
        loop {
            for index in self.order() {
                if !rounds.may_ask(index) {
                    continue;
                }
                self.tell(false, index);
                let mut request = self.http.get(format!("{}{path}", servers[index]));
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let asked = request.bearer_auth(&self.access.token).send();
                let patience = Duration::from_millis(self.access.attempt_ms);
                let again = match tokio::time::timeout(patience, asked).await {
                    Ok(Ok(response)) if response.status().is_success() => return Ok(response),
                    Ok(Ok(response)) => match read(response).await {
                        Attempt::Refused(failure) => return Err(failure.at(path)),
                        Attempt::Again(again) => again,
                        Attempt::Answered(_) => {
                            Again::unanswered("an answer that is no stream".into())
                        }
                    },
                    Ok(Err(cause)) => Again::unanswered(innermost(&cause)),
                    Err(_) => Again::unanswered("no answer in time".into()),
                };
                rounds.note(index, again);
            }
            rounds.next().await?;
        }
    }
}

impl Lines {
    /// The next line without its end; none at the end of the stream.
    ///
    /// # Errors
    /// When the stream breaks off, or a line is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            let found = self.pending[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            if let Some(place) = found {
                let mut line: Vec<u8> = self.pending.drain(..=self.searched + place).collect();
                self.searched = 0;
                line.pop();
                return Ok(Some(line));
            }
            self.searched = self.pending.len();
            if self.searched > LINE_BYTES_MAX {
                return Err(Failure::answer("a line of the stream is too long"));
            }
            let chunk = self.response.chunk().await;
            let broken =
                |cause| Failure::Failed(format!("the stream broke off: {}", innermost(&cause)));
            match chunk.map_err(broken)? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None if self.pending.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(std::mem::take(&mut self.pending)));
                }
            }
        }
    }
}
