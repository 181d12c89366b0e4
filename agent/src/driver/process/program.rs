//! Finds the file of a program, and checks it where the release pins it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use dotmac_protocol::{digest::Digest, release::Run};

use super::environment::Rendering;
use crate::driver::StartError;

/// Bytes of a pinned program at most.
const PROGRAM_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The absolute path of the program of a slot.
pub(super) fn find(rendering: &Rendering<'_>, search_path: &OsStr) -> Result<PathBuf, StartError> {
    let component = &rendering.slot.component;
    let (command, pinned) = match &rendering.component.run {
        Run::Command(command) => (command, None),
        Run::Pinned { command, digest } => (command, Some(digest)),
        Run::Image(image) => {
            let (component, image) = (component.clone(), image.clone());
            return Err(StartError::Image { component, image });
        }
    };
    let program = rendering.argument(command.first().map_or("", String::as_str))?;
    let path = locate(&program, search_path).ok_or_else(|| StartError::Program {
        component: component.clone(),
        program,
    })?;
    if let Some(pinned) = pinned {
        let found = digest(&path).map_err(|source| StartError::Disk {
            path: path.clone(),
            source,
        })?;
        if found.to_string() != *pinned {
            let pinned = pinned.clone();
            return Err(StartError::Pin {
                path,
                found,
                pinned,
            });
        }
    }
    Ok(path)
}

/// An absolute path, or a name to look for; a relative path means nothing here.
fn locate(program: &str, search_path: &OsStr) -> Option<PathBuf> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return (path.is_absolute() && is_program(&path)).then_some(path);
    }
    let directories = std::env::split_paths(search_path).filter(|path| path.is_absolute());
    directories
        .map(|path| path.join(program))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The digest as `sha256sum` computes it. It is checked at every start, right before it.
fn digest(path: &Path) -> io::Result<Digest> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > PROGRAM_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it exceeds {PROGRAM_BYTES_MAX} bytes"
        )));
    }
    let mut bytes = Vec::new();
    file.take(PROGRAM_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Digest::of(&bytes))
}
