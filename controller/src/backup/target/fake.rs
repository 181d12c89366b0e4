//! A store for tests that answers what the test says.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream},
};

use super::{Reach, Target};

/// One answer, with a pause before each of its pieces.
#[derive(Debug)]
pub(crate) struct Reply {
    status: &'static str,
    pieces: Vec<Vec<u8>>,
    pause: Duration,
}

impl Reply {
    pub(crate) fn of(body: impl Into<Vec<u8>>) -> Self {
        Self::slow(vec![body.into()], Duration::ZERO)
    }

    pub(crate) fn slow(pieces: Vec<Vec<u8>>, pause: Duration) -> Self {
        Self {
            status: "200 OK",
            pieces,
            pause,
        }
    }

    pub(crate) fn missing() -> Self {
        Self {
            status: "404 Not Found",
            ..Self::of("")
        }
    }
}

/// A bucket `b` with the prefix `p`.
pub(crate) struct Fake {
    pub(crate) target: Target,
}

impl Fake {
    /// `answer` gets the first line of each question, such as `GET /b/p/name/state HTTP/1.1`.
    pub(crate) async fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(move |line, _| answer(line)).await
    }

    /// `answer` gets the body as well.
    pub(crate) async fn start_with(
        answer: impl Fn(&str, &[u8]) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reach = Reach {
            endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
            region: Some("r".into()),
            access_key_id: Some("id".into()),
            secret_access_key: Some("secret".into()),
        };
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move { converse(stream, &*answer).await });
            }
        });
        let target = Target::open("s3://b/p", &reach).unwrap();
        Self { target }
    }
}

/// Answers one question; who asks and leaves is no failure of the test.
async fn converse(stream: TcpStream, answer: &(impl Fn(&str, &[u8]) -> Reply + Sync)) {
    let mut stream = BufStream::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_ascii_lowercase());
        if lines.len() == 1 {
            lines.push(line.trim().to_owned());
        }
    }
    let length = lines
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let reply = answer(&lines[1], &body);
    let length: usize = reply.pieces.iter().map(Vec::len).sum();
    let head = format!(
        "HTTP/1.1 {}\r\ncontent-length: {length}\r\nconnection: close\r\netag: \"e\"\r\n\
         last-modified: Mon, 23 Nov 2026 16:54:00 GMT\r\n\r\n",
        reply.status
    );
    let mut sent = stream.write_all(head.as_bytes()).await;
    sent = sent.and(stream.flush().await);
    for piece in reply.pieces {
        tokio::time::sleep(reply.pause).await;
        sent = sent.and(stream.write_all(&piece).await);
        sent = sent.and(stream.flush().await);
    }
    let _ = sent.and(stream.shutdown().await);
}
