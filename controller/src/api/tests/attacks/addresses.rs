//! Addresses and methods: nothing leads to another place than it says, and no token is taken from an address.

use super::{authorization, is_untouched, say, statuses, target};
use crate::api::{
    DEPLOYMENTS,
    tests::world::{ADMIN, World},
};

#[tokio::test]
async fn no_path_leads_anywhere_else_than_it_says() {
    let world = World::new().await;
    let id = target(&world).await;
    let own = authorization();
    for path in [
        format!("/{DEPLOYMENTS}"),
        format!("{DEPLOYMENTS}/"),
        format!("{DEPLOYMENTS}//{id}"),
        format!("{DEPLOYMENTS}/{id}/"),
        format!("{DEPLOYMENTS}/./{id}"),
        format!("{DEPLOYMENTS}/x/../{id}"),
        format!("{DEPLOYMENTS}/x/%2e%2e/{id}"),
        format!("{DEPLOYMENTS}/x/%2E./{id}"),
        format!("{DEPLOYMENTS}%2f{id}"),
        format!("{DEPLOYMENTS}/..%2f..%2fhealth%2flive"),
        format!("{DEPLOYMENTS}/..%5c{id}"),
        format!("{DEPLOYMENTS}/{id}%00"),
        format!("{DEPLOYMENTS}/{id}%0d%0aX:%20y"),
        format!("{DEPLOYMENTS}/{id};a=b"),
        format!("{DEPLOYMENTS};jsessionid=1/{id}"),
        format!("{DEPLOYMENTS}/%c0%ae%c0%ae/{id}"),
        format!("{DEPLOYMENTS}/{id}%ff"),
        format!("{DEPLOYMENTS}/{id}%"),
        format!("{DEPLOYMENTS}/{}", id.to_uppercase()),
        format!("{DEPLOYMENTS}/{id}%20"),
        format!("{DEPLOYMENTS}/{id}."),
        "/API/v1/releases".to_owned(),
        "/api/v1/%72eleases/".to_owned(),
        "/health/live/..".to_owned(),
        "/*".to_owned(),
        "/api".to_owned(),
        "/docs/../api/v1/agents".to_owned(),
        "/docs/errors/..%2f..%2fCargo.toml".to_owned(),
    ] {
        for method in ["GET", "DELETE"] {
            let close = "Connection: close\r\n";
            let heard = say(
                &world,
                format!("{method} {path} HTTP/1.1\r\n{own}{close}\r\n"),
            )
            .await;
            let found = statuses(&heard);
            assert!(
                matches!(found[..], ["400" | "404"]),
                "{method} {path}\n{heard}"
            );
            assert!(
                heard.contains("application/problem+json"),
                "{path}\n{heard}"
            );
        }
        assert!(is_untouched(&world, &id).await, "{path}");
    }
}

#[tokio::test]
async fn no_word_but_the_method_itself_says_what_is_done() {
    let world = World::new().await;
    let id = target(&world).await;
    let path = format!("{DEPLOYMENTS}/{id}");
    for header in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
    ] {
        let request = world
            .request("GET", &path)
            .bearer_auth(ADMIN)
            .header(header, "DELETE");
        assert_eq!(World::send(request).await.status, 200);
        let request = world
            .request("GET", &format!("{path}?_method=DELETE"))
            .bearer_auth(ADMIN);
        assert_eq!(
            World::send(request.header(header, "DELETE")).await.status,
            422
        );
    }
    let own = authorization();
    for method in [
        "TRACE", "PUT", "PROPFIND", "delete", "Delete", "FOO", "DEBUG",
    ] {
        let text = format!(
            "{method} {path} HTTP/1.1\r\n{own}Connection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let heard = say(&world, text).await;
        assert_eq!(statuses(&heard), ["405"], "{method}\n{heard}");
        assert!(heard.contains("\r\nallow: "), "{heard}");
        assert!(!heard.contains(ADMIN), "it is repeated: {heard}");
    }
    assert!(is_untouched(&world, &id).await);
}

#[tokio::test]
async fn head_is_a_get_without_its_body_and_options_says_what_there_is() {
    let world = World::new().await;
    let id = target(&world).await;
    let path = format!("{DEPLOYMENTS}/{id}");
    let got = world.get(&path).await;
    let own = authorization();
    let heard = say(
        &world,
        format!("HEAD {path} HTTP/1.1\r\n{own}Connection: close\r\n\r\n"),
    )
    .await;
    assert_eq!(statuses(&heard), ["200"]);
    assert!(
        heard.ends_with("\r\n\r\n") && heard.contains(&format!("etag: {}", got.header("etag"))),
        "{heard}"
    );
    assert!(
        heard.contains(&format!("content-length: {}\r\n", got.text.len())),
        "{heard}"
    );
    let heard = say(
        &world,
        format!("OPTIONS {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
    )
    .await;
    assert_eq!(statuses(&heard), ["204"]);
    let allow = heard
        .lines()
        .find_map(|line| line.strip_prefix("allow: "))
        .unwrap();
    for method in ["GET", "HEAD", "DELETE", "PATCH"] {
        assert!(
            allow.split(',').any(|one| one.trim() == method),
            "{method} in {allow}"
        );
    }
    let heard = say(
        &world,
        "OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(statuses(&heard), ["404"]);
}

#[tokio::test]
async fn a_token_in_an_address_opens_nothing() {
    let world = World::new().await;
    let token = "dotmac_pat_0123456789abcdef_canary7f3a";
    let open = "/api/v1/agents";
    for address in [
        format!("{open}?access_token={token}"),
        format!("{open}?x={token}"),
        format!("{open}?Authorization=Bearer%20{token}"),
        format!("{open}?token={ADMIN}"),
        format!("{open}/{token}"),
        format!("{open}/DOTMAC%5Fpat%5f0123456789abcdef_canary7f3a"),
        format!("{open}#{token}"),
        format!("http://{token}@h{open}"),
        format!("https://user:{token}@h{open}"),
    ] {
        let text = format!("GET {address} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let heard = say(&world, text).await;
        assert!(
            matches!(statuses(&heard)[..], ["400" | "401"]),
            "{address}\n{heard}"
        );
        assert!(
            !heard.contains("canary7f3a") && !heard.contains(ADMIN),
            "{heard}"
        );
    }
}
