//! Where the programs under test lie: beside the test program itself. It builds nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// The programs of a fleet.
pub const PROGRAMS: [&str; 4] = ["dotmac", "dotmac-controller", "dotmac-agent", "demo-isp"];

/// The directory that `cargo build --workspace --bins` fills.
///
/// # Errors
/// When a program is missing there.
pub fn directory() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the test program has no path")?;
    let directory = own
        .ancestors()
        .skip(1)
        .find(|directory| directory.file_name().is_some_and(|name| name != "deps"))
        .context("the test program lies nowhere")?
        .to_owned();
    for program in PROGRAMS {
        let path = directory.join(program);
        ensure!(
            path.is_file(),
            "{} is missing: cargo build --workspace --bins",
            path.display()
        );
    }
    Ok(directory)
}

/// A peer that `make peers` built, if it did.
///
/// # Errors
/// When it is missing.
pub fn peer(name: &str) -> Result<PathBuf> {
    let directory = directory()?;
    let target = directory.parent().unwrap_or(Path::new(".")).join("peers");
    let peers = std::env::var_os("DOTMAC_PEERS").filter(|path| !path.is_empty());
    let program = peers.map_or(target, PathBuf::from).join("bin").join(name);
    ensure!(
        program.exists(),
        "{} is missing: make peers PEERS={name}",
        program.display()
    );
    Ok(program)
}

/// A directory for homes on the file system of the programs, so that they can be linked.
///
/// # Errors
/// When it cannot be made.
pub fn homes() -> Result<PathBuf> {
    let directory = directory()?;
    let homes = directory.parent().unwrap_or(&directory).join("tmp/homes");
    std::fs::create_dir_all(&homes)
        .with_context(|| format!("{} cannot be made", homes.display()))?;
    Ok(homes)
}

/// Puts the programs into a home, as `make up` does.
///
/// # Errors
/// When the home cannot be written.
pub fn install(home: &Path) -> Result<()> {
    install_from(&directory()?, home)
}

/// Puts the programs of another directory into a home, linked where that is possible. Those that run keep their file.
///
/// # Errors
/// When the home cannot be written, or a program is missing.
pub fn install_from(directory: &Path, home: &Path) -> Result<()> {
    let bin = home.join("bin");
    std::fs::create_dir_all(&bin)?;
    for program in PROGRAMS {
        let (from, to, new) = (
            directory.join(program),
            bin.join(program),
            bin.join(format!("{program}.new")),
        );
        if std::fs::hard_link(&from, &new).is_err() {
            std::fs::copy(&from, &new)
                .with_context(|| format!("{} cannot be installed", from.display()))?;
        }
        std::fs::rename(&new, &to)?;
        // Two names of one file are left both by a rename.
        if new.exists() {
            std::fs::remove_file(&new)?;
        }
    }
    Ok(())
}
