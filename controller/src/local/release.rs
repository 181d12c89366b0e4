//! The demo release as a local fleet registers it: the shipped manifest with the path of the installed program.

use std::path::Path;

use dotmac_protocol::release::{Manifest, Run};
use serde_json::Value;

use crate::cli::failure::Failure;

/// The demo instance's program.
pub(crate) const DEMO_PROGRAM: &str = "demo-isp";
const DEMO_MANIFEST: &str = include_str!("../../../tests/releases/demo-isp.json");

/// The demo manifest for a program at this place. A home that moved needs a new version of it, because a release never
/// changes; `again` tells it apart.
pub(crate) fn demo(program: &Path, again: bool) -> Result<Manifest, Failure> {
    render(DEMO_MANIFEST, program, again)
}

fn render(text: &str, program: &Path, again: bool) -> Result<Manifest, Failure> {
    let broken = |cause: &dyn std::fmt::Display| {
        Failure::Failed(format!("the demo manifest is broken: {cause}"))
    };
    let mut manifest = Manifest::parse(text.as_bytes()).map_err(|error| broken(&error))?;
    let path = program
        .to_str()
        .filter(|path| !path.contains("${"))
        .ok_or_else(|| broken(&format!("{} is no path it can name", program.display())))?;
    for component in manifest.components.values_mut() {
        if let Run::Command(command) = &mut component.run
            && let Some(first) = command.first_mut()
            && first == DEMO_PROGRAM
        {
            path.clone_into(first);
        }
    }
    if again {
        let mark = &manifest.digest().hex()[..8];
        let version = format!("{}-{mark}", manifest.version);
        manifest.version = version.parse().map_err(|error| broken(&error))?;
    }
    Ok(manifest)
}

/// A manifest as the API takes it.
pub(crate) fn body(manifest: &Manifest) -> Value {
    serde_json::to_value(manifest).expect("a manifest has text keys only")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dotmac_protocol::release::Manifest;

    use super::{body, demo};

    #[test]
    fn the_program_is_found_by_its_absolute_path() {
        let manifest = demo(Path::new("/srv/fleet/bin/demo-isp"), false).unwrap();
        let web = manifest.components.values().next().unwrap();
        assert_eq!(web.run.command().unwrap()[0], "/srv/fleet/bin/demo-isp");
        assert_eq!(
            Manifest::parse(body(&manifest).to_string().as_bytes()).unwrap(),
            manifest
        );
    }

    #[test]
    fn a_moved_home_gets_a_version_of_its_own() {
        let (here, there) = (Path::new("/a/demo-isp"), Path::new("/b/demo-isp"));
        let versions = [demo(here, false), demo(here, true), demo(there, true)]
            .map(|one| one.unwrap().version);
        assert_eq!(versions[0].as_str(), "1.0.0");
        assert!(versions[1].as_str().starts_with("1.0.0-") && versions[1] != versions[2]);
        assert!(demo(Path::new("/${x}/demo-isp"), false).is_err());
    }
}
