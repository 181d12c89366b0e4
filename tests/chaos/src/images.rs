//! Disks that can lose power. Each is an ext4 file system in an image that is mounted through a loop device; the images lie
//! on an ext4 of their own, likewise in an image. Freezing that outer one stops all writes to the inner images at one
//! instant, whatever the controllers are doing: what an image holds then has reached the disk, what only the page cache of
//! its mount holds has not. A copy of the images is what a machine finds when its power comes back.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::shell::{run, run_all};

/// Bytes of one disk; sparse.
const DISK_MIB: u64 = 160;
/// Bytes of what the disks lie on: three, their copies, and room; sparse.
const OUTER_MIB: u64 = 2_048;

/// A file system in an image file, mounted.
#[derive(Debug)]
pub(crate) struct Image {
    file: PathBuf,
    at: PathBuf,
    is_mounted: bool,
}

impl Image {
    /// Makes a file system of so many MiB and mounts it.
    pub(crate) async fn make(file: PathBuf, at: PathBuf, mebibytes: u64) -> Result<Self> {
        let disk = fs::File::create(&file).with_context(|| file.display().to_string())?;
        disk.set_len(mebibytes * 1024 * 1024)?;
        run(&format!("mkfs.ext4 -q -F -m 0 {}", file.display())).await?;
        Self::mount(file, at).await
    }

    /// Mounts an image; what is in its journal is replayed.
    pub(crate) async fn mount(file: PathBuf, at: PathBuf) -> Result<Self> {
        fs::create_dir_all(&at)?;
        // Nothing is written back in the background while a test lasts: what is not synced stays unsynced.
        let line = format!(
            "mount -o loop,commit=600 {} {}",
            file.display(),
            at.display()
        );
        run(&line).await?;
        Ok(Self {
            file,
            at,
            is_mounted: true,
        })
    }

    /// Unmounts it and gives the image's path.
    pub(crate) async fn unmount(mut self) -> Result<PathBuf> {
        run(&format!("umount {}", self.at.display())).await?;
        self.is_mounted = false;
        Ok(self.file.clone())
    }

    /// Where it is mounted.
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.is_mounted {
            // The run failed: nothing of it may be left mounted. Lazily, a process may still be ending.
            let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        }
    }
}

/// A frozen file system: whoever writes there waits. It is thawed whatever happens, or nothing below it could ever end.
#[derive(Debug)]
pub(crate) struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        // Blocks for a moment; not frozen at all when freezing failed.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
    }
}

/// Three disks on one that can be frozen.
#[derive(Debug)]
pub(crate) struct Images {
    inner: Vec<Image>,
    outer: Image,
    round: u64,
}

impl Images {
    /// Makes them below a folder and mounts each at its place.
    pub(crate) async fn make(home: &Path, places: &[PathBuf]) -> Result<Self> {
        let outer = Image::make(home.join("outer.img"), home.join("outer"), OUTER_MIB).await?;
        let mut inner = Vec::new();
        for (number, place) in places.iter().enumerate() {
            let file = outer.at().join(format!("{number}-0.img"));
            inner.push(Image::make(file, place.clone(), DISK_MIB).await?);
        }
        Ok(Self {
            inner,
            outer,
            round: 0,
        })
    }

    /// From now on nothing reaches the disks, until what this gives is dropped.
    pub(crate) async fn freeze(&self) -> Result<Frozen> {
        let frozen = Frozen(self.outer.at().to_owned());
        run(&format!("fsfreeze -f {}", frozen.0.display())).await?;
        Ok(frozen)
    }

    /// Copies the frozen images below `to`, which is on another file system.
    pub(crate) async fn copy(&self, to: &Path) -> Result<()> {
        let copies = self.inner.iter().enumerate().map(|(number, image)| {
            let (from, to) = (image.file.display(), to.join(format!("{number}.img")));
            format!("cp --sparse=always {from} {}", to.display())
        });
        run_all(&copies.collect::<Vec<_>>()).await
    }

    /// Puts the copies in place of the disks, and tells what of each was lost. Nothing may run on them any more.
    pub(crate) async fn restore(&mut self, from: &Path) -> Result<Lost> {
        self.round += 1;
        let mut lost = Lost::default();
        for (number, image) in std::mem::take(&mut self.inner).into_iter().enumerate() {
            let name = format!("{number}-{}.img", self.round);
            let file = self.outer.at().join(name);
            let copy = from.join(format!("{number}.img"));
            run(&format!(
                "cp --sparse=always {} {}",
                copy.display(),
                file.display()
            ))
            .await?;
            let beside = from.join(format!("{number}"));
            let found = Image::mount(file, beside).await?;
            lost.compare(image.at(), found.at())?;
            let (at, file) = (image.at().to_owned(), found.unmount().await?);
            fs::remove_file(image.unmount().await?)?;
            self.inner.push(Image::mount(file, at).await?);
        }
        Ok(lost)
    }

    /// Unmounts everything.
    pub(crate) async fn remove(self) -> Result<()> {
        for image in self.inner {
            image.unmount().await?;
        }
        self.outer.unmount().await?;
        Ok(())
    }
}

/// What a power cut took.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Bytes that differ between what the processes had written and what the disk holds.
    pub(crate) bytes: u64,
    /// Those of them in the database itself.
    pub(crate) database_bytes: u64,
}

impl Lost {
    /// Compares all files below two folders.
    fn compare(&mut self, written: &Path, found: &Path) -> Result<()> {
        for entry in fs::read_dir(written)? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let (own, other) = (entry.path(), found.join(&name));
            if kind.is_dir() {
                if name != "lost+found" {
                    self.compare(&own, &other)?;
                }
                continue;
            }
            let (own, other) = (fs::read(own)?, fs::read(other).unwrap_or_default());
            let differing = differing(&own, &other);
            self.bytes += differing;
            if name == "db" {
                self.database_bytes += differing;
            }
        }
        Ok(())
    }
}

/// Bytes in which two files differ; a length that differs counts.
fn differing(one: &[u8], other: &[u8]) -> u64 {
    let tail = one.len().abs_diff(other.len()) as u64;
    // Equal pages are compared as such: files are large and differ little.
    let pages = one.chunks(4096).zip(other.chunks(4096));
    let differing = pages
        .filter(|(one, other)| one != other)
        .map(|(one, other)| {
            let bytes = one.iter().zip(other).filter(|(one, other)| one != other);
            bytes.count() as u64
        });
    tail + differing.sum::<u64>()
}
