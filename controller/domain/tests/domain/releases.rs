//! Which release a request gets that names none.

use dotmac_domain::{Command, reply::Code};

use crate::fixture::{MANIFEST, World, code_of, create};

fn add(world: &mut World, version: &str) {
    world.now += 1;
    let manifest = MANIFEST.replace("1.0.0", version).into_bytes();
    world.ask(Command::AddRelease { manifest }).unwrap();
}

fn retire(world: &mut World, version: &str) {
    let name = "demo-isp".parse().unwrap();
    let version = version.parse().unwrap();
    world.ask(Command::RetireRelease { name, version }).unwrap();
}

#[test]
fn a_retired_default_gives_way_to_the_release_before_it() {
    let (mut world, _) = World::with_agent();
    add(&mut world, "1.1.0");
    add(&mut world, "1.2.0");
    let chosen = |world: &World| world.state.choose_release(None).map(|key| key.to_string());
    assert_eq!(chosen(&world), Ok("demo-isp:1.2.0".into()));
    retire(&mut world, "1.1.0");
    assert_eq!(chosen(&world), Ok("demo-isp:1.2.0".into()));
    retire(&mut world, "1.2.0");
    assert_eq!(chosen(&world), Ok("demo-isp:1.0.0".into()));
    retire(&mut world, "1.0.0");
    let rejection = chosen(&world).unwrap_err();
    assert_eq!(rejection.code, Code::UnknownRelease);
    assert!(
        rejection
            .detail
            .contains("channel \"stable\" has no release"),
        "{rejection}"
    );
    assert_eq!(code_of(world.ask(create("Late ISP"))), Code::UnknownRelease);
}
