//! The server of the judge's Metrica and Yandex ID: one place, and a world of its own for each row.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};

use super::wire::{Request, Said};
use super::world::World;
use crate::harness::Upstream;
use crate::harness::upstream::server_config;

/// Starts it; each request goes to the world that knows its token.
pub fn serve(worlds: &[Arc<World>]) -> Upstream {
    let key = KeyPair::generate().unwrap();
    let names = ["api-metrika.yandex.net", "login.yandex.ru"].map(str::to_owned).to_vec();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let worlds = worlds.to_vec();
    Upstream::run_with(server_config(certificate.der().to_vec(), &key), certificate.pem(), move |conversation| {
        while let Some(head) = conversation.request_head() {
            conversation.request_body(&head);
            let request = Request::of(&head);
            let knows = |world: &&Arc<World>| {
                let token = request.token.as_deref().unwrap_or_default();
                world.state().tokens.contains_key(token)
            };
            let said = match worlds.iter().find(knows) {
                Some(world) => world.answer(&request),
                None => Said::invalid_token(403),
            };
            conversation.write(said.bytes());
        }
    })
}
