//! `dotmac logs`: what a process of the local fleet, or a deployment anywhere, writes. A deployment's lines are sealed
//! by its agent to a key that lives only in this process, so no controller reads them.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{deployments, failure::Failure, find::Context, output::clean_lines, sealed::Asker};
use crate::local::member::Member;

/// Milliseconds between two looks at a growing file.
const LOOK_MS: u64 = 100;
/// Bytes of a file that are searched for its last lines at most.
const TAIL_BYTES_MAX: u64 = 4 * 1024 * 1024;

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

    async fn deployment(&self, context: &Context) -> Result<(), Failure> {
        let asker = Asker::new(&context.entropy);
        let mut path = format!(
            "{}/logs?lines={}&follow={}&seal_to={}",
            deployments::path_of(&self.name),
            self.lines,
            self.follow,
            asker.seal_to()
        );
        if let Some(component) = &self.component {
            path.push_str(&format!("&component={}", super::client::encode(component)));
        }
        let mut lines = context.client()?.lines(&path, &[]).await?;
        while let Some(line) = lines.next().await? {
            let text = asker.open(&line)?;
            write(&clean_lines(&String::from_utf8_lossy(&text)))?;
        }
        Ok(())
    }
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
