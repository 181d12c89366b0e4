//! `dotmac logs`: what a process of the local fleet, or a deployment anywhere, writes. A deployment's lines are sealed
//! by its agent to a key that lives only in this process, so no controller reads them.

mod seen;

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use self::seen::Seen;
use super::{
    client::{Client, Lines},
    deployments,
    failure::Failure,
    find::Context,
    output::clean_lines,
    sealed::Asker,
};
use crate::local::member::Member;

/// Milliseconds between two looks at a growing file.
const LOOK_MS: u64 = 100;
/// Bytes of a file that are searched for its last lines at most.
const TAIL_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of a past that is told once more at most.
const PAST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The past has been told when nothing comes for so long, or when it took so long altogether.
const PAST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Pause before another stream is opened, doubled while none tells anything.
const PAUSE_MS: (u64, u64) = (100, 2_000);
/// Streams one after the other that end at once and tell nothing, before that is an error.
const EMPTY_STREAMS_MAX: u32 = 15;
/// A stream that ends sooner ended at once.
const AT_ONCE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Logs {
    /// A process of the local fleet (controller-1, aws-eu-west-1, supervisor …) or a deployment
    name: String,
    /// Go on with new lines
    #[arg(short, long)]
    follow: bool,
    /// Lines of the past
    #[arg(short = 'n', long, default_value_t = 100)]
    lines: u32,
    /// Only this component of a deployment
    #[arg(long)]
    component: Option<String>,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.local_file(context) {
            Some(file) => self.file(context, &file).await,
            None => self.deployment(context).await,
        }
    }

    fn local_file(&self, context: &Context) -> Option<PathBuf> {
        let layout = context
            .home()
            .filter(super::super::local::layout::Layout::exists)?;
        if self.name == "supervisor" {
            return Some(crate::local::log_of_supervisor(&layout));
        }
        let member = Member::all(&layout)
            .into_iter()
            .find(|member| member.name == self.name)?;
        Some(member.log())
    }

    async fn file(&self, context: &Context, path: &Path) -> Result<(), Failure> {
        let failed = |cause: &std::io::Error| Failure::io("read", path, cause);
        let lines = usize::try_from(self.lines).unwrap_or(usize::MAX);
        let (text, mut place) = tail(path, lines).map_err(|cause| failed(&cause))?;
        write(&clean_lines(&text))?;
        if !self.follow {
            return Ok(());
        }
        let mut inode = std::fs::metadata(path)
            .map_err(|cause| failed(&cause))?
            .ino();
        loop {
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            // Between two names of a rotation there may be no file for a moment.
            let Ok(metadata) = std::fs::metadata(path) else {
                continue;
            };
            if metadata.ino() != inode || metadata.len() < place {
                context.output.note("-- the log was rotated --");
                (inode, place) = (metadata.ino(), 0);
            }
            let text = read_from(path, place).map_err(|cause| failed(&cause))?;
            place += text.len() as u64;
            write(&clean_lines(&String::from_utf8_lossy(&text)))?;
        }
    }

    /// A stream that breaks off is opened again, at whichever controller serves: always with `--follow`, otherwise as
    /// long as nothing was shown.
    async fn deployment(&self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let mut seen = Seen::default();
        let mut empty_streams = 0;
        let mut pause_ms = PAUSE_MS.0;
        loop {
            let asker = Asker::new(&context.entropy);
            let is_resumed = !seen.is_empty();
            let mut stream = self.open(&client, &asker, is_resumed).await?;
            let opened = tokio::time::Instant::now();
            if is_resumed {
                stream.resume(context, &mut seen).await?;
            }
            let broken = stream.show(&mut seen).await?;
            if !self.follow && (broken.is_none() || !seen.is_empty()) {
                return broken.map_or(Ok(()), |why| Err(incomplete(&self.name, &why)));
            }
            if stream.is_silent && opened.elapsed() < AT_ONCE {
                empty_streams += 1;
                pause_ms = (pause_ms * 2).min(PAUSE_MS.1);
            } else {
                (empty_streams, pause_ms) = (0, PAUSE_MS.0);
            }
            if empty_streams >= EMPTY_STREAMS_MAX {
                let why =
                    broken.map_or_else(|| "it ends at once".to_owned(), |why| why.to_string());
                return Err(incomplete(&self.name, &why));
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    async fn open<'a>(
        &self,
        client: &Client,
        asker: &'a Asker,
        is_resumed: bool,
    ) -> Result<Stream<'a>, Failure> {
        let lines = match (is_resumed, u32::try_from(seen::LINES_MAX)) {
            (true, Ok(lines)) => lines,
            _ => self.lines,
        };
        let mut path = format!(
            "{}/logs?lines={lines}&follow={}&seal_to={}",
            deployments::path_of(&self.name),
            self.follow,
            asker.seal_to()
        );
        if let Some(component) = &self.component {
            path.push_str(&format!("&component={}", super::client::encode(component)));
        }
        Ok(Stream {
            lines: client.lines(&path, &[]).await?,
            asker,
            is_silent: true,
        })
    }
}

/// What a deployment writes, as one controller passes it on.
struct Stream<'a> {
    lines: Lines,
    asker: &'a Asker,
    /// Whether nothing came so far.
    is_silent: bool,
}

/// How a stream goes on.
enum Next {
    Text(String),
    End,
    Broken(String),
}

impl Stream<'_> {
    async fn next(&mut self) -> Result<Next, Failure> {
        match self.lines.next().await {
            Ok(None) => Ok(Next::End),
            Err(why) => Ok(Next::Broken(why.to_string())),
            Ok(Some(line)) => {
                let text = self.asker.open(&line)?;
                self.is_silent &= text.is_empty();
                Ok(Next::Text(String::from_utf8_lossy(&text).into_owned()))
            }
        }
    }

    /// Shows what comes, to the end; gives why that came early.
    async fn show(&mut self, seen: &mut Seen) -> Result<Option<String>, Failure> {
        loop {
            match self.next().await? {
                Next::End => return Ok(None),
                Next::Broken(why) => return Ok(Some(why)),
                Next::Text(text) => {
                    write(&clean_lines(&text))?;
                    seen.note(&text);
                }
            }
        }
    }

    /// Takes the past that is told once more, and shows what of it is new.
    async fn resume(&mut self, context: &Context, seen: &mut Seen) -> Result<(), Failure> {
        let mut past = String::new();
        let (silence, limit) = PAST;
        let end = tokio::time::Instant::now() + limit;
        while past.len() < PAST_BYTES_MAX && tokio::time::Instant::now() < end {
            match tokio::time::timeout(silence, self.next()).await {
                Ok(Ok(Next::Text(text))) => past.push_str(&text),
                Ok(Err(failure)) => return Err(failure),
                // Whatever ended it is met again by whoever reads on.
                Ok(Ok(Next::End | Next::Broken(_))) | Err(_) => break,
            }
        }
        let news = seen.news(&past);
        context.output.note(match news.is_certain {
            true => "-- reconnected --",
            false => "-- reconnected; lines may repeat or be missing --",
        });
        write(&clean_lines(&news.text))?;
        seen.note(&news.text);
        Ok(())
    }
}

fn incomplete(name: &str, why: &str) -> Failure {
    Failure::Failed(format!(
        "{name}: {why}; what is shown is not all\n  next: dotmac logs {name}"
    ))
}

/// The last lines of a file, and its length.
pub(crate) fn tail(path: &Path, lines: usize) -> std::io::Result<(String, u64)> {
    let length = std::fs::metadata(path)?.len();
    let text = read_from(path, length.saturating_sub(TAIL_BYTES_MAX))?;
    let text = String::from_utf8_lossy(&text);
    let skipped = text.lines().count().saturating_sub(lines);
    let mut last = String::new();
    for line in text.lines().skip(skipped) {
        last.push_str(line);
        last.push('\n');
    }
    Ok((last, length))
}

fn read_from(path: &Path, place: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(place))?;
    let mut text = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// Writes at once; a reader that went away ends the command quietly.
fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(cause) => Err(Failure::Failed(format!("cannot write: {cause}"))),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn the_last_lines_of_a_file_are_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("log");
        std::fs::write(&file, "a\nb\nc").unwrap();
        assert_eq!(tail(&file, 2).unwrap(), ("b\nc\n".to_owned(), 5));
        assert_eq!(tail(&file, 0).unwrap().0, "");
    }
}
