//! Compares the issuer of a token with the configuration (rule 2 of the doctor).

use http::StatusCode;
use metrica::login;

use super::Doctor;
use super::finding::Finding;
use crate::config::TokenSource;
use crate::health::identity::{self, Issuer};
use crate::health::probe::Place;
use crate::health::question::{Obstacle, Question, Reply};
use crate::token::Token;

/// The reply of Yandex ID about a token.
pub(super) enum Identity {
    /// No usable reply, or no `identity` in the configuration.
    Silent,
    /// The token is invalid.
    Invalid,
    /// The token is valid, with this issuer.
    Known(Issuer),
}

impl Doctor<'_> {
    /// Asks Yandex ID for the issuer of a token and compares it with the configuration (rule 2).
    pub(super) async fn identify(&mut self, source: &TokenSource, token: &Token) -> Identity {
        let (Some(place), Some(identity)) = (&self.issuer, &self.config.identity) else {
            self.report(source, Finding::IssuerNotAsked);
            return Identity::Silent;
        };
        let place = Place::new(place.upstream.clone());
        let reply = self.ask_at(&place, source.alias, token, Question::Issuer, &identity.path).await;
        // Yandex ID does not use Metrica's error format.
        if matches!(reply, Reply::Invalid | Reply::Unclear(Obstacle::Answer(StatusCode::UNAUTHORIZED, _))) {
            return Identity::Invalid;
        }
        if let Reply::Yes(body) = &reply
            && let Some(issuer) = identity::read(body, &self.secrets)
        {
            self.compare(source, &issuer);
            return Identity::Known(issuer);
        }
        let why = reply.unexpected();
        let unreached = match &mut self.issuer {
            Some(place) => Self::unreached(place, &why, self.now).await,
            None => None,
        };
        self.report(source, unreached.unwrap_or(Finding::IssuerUnknown { why }));
        Identity::Silent
    }

    fn compare(&mut self, source: &TokenSource, issuer: &Issuer) {
        let login = issuer.login.clone();
        let owner = match source.origin.owner.clone() {
            None => Finding::OwnerSeen { login },
            Some(stated) if login::is_same(&stated, &login) => Finding::Owner { login },
            Some(stated) if login::is_organisation(&stated) && !login::is_organisation(&login) => {
                Finding::OwnerPersonal { login, stated }
            }
            Some(stated) => Finding::OwnerOther { login, stated },
        };
        self.report(source, owner);
        let client_id = issuer.client_id.clone();
        let application = match source.origin.client_id.clone() {
            None => Finding::ApplicationSeen { client_id },
            Some(stated) if stated.eq_ignore_ascii_case(&client_id) => Finding::Application { client_id },
            Some(stated) => Finding::ApplicationOther { client_id, stated },
        };
        self.report(source, application);
    }
}
