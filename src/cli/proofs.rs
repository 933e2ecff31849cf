//! The proofs that `explain` is given, and the callers that they name.
//!
//! Listeners and addresses are not given, so conditions on them count as met.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use strict_http::number;
use zeroize::Zeroizing;

use crate::policy::caller::{
    Caller, Callers, Condition, ConditionKind, Conditions, Evidence, ListenerName, NoCaller, Peer, Proofs,
    ServiceAccount, SubjectName,
};
use crate::policy::offered::Offered;
use crate::policy::rejection::Rejection;

#[derive(Debug, Args)]
pub(super) struct ProofArgs {
    /// Read a key from stdin, and show the caller that it names
    #[arg(long, env = "METRIKA_GATE_EXPLAIN_KEY_STDIN", conflicts_with = "from")]
    key_stdin: bool,
    /// A name of the client's certificate, as under `san`; repeatable, ','-separated in the variable
    #[arg(long, value_name = "NAME", env = "METRIKA_GATE_EXPLAIN_SAN", value_delimiter = ',', conflicts_with = "from")]
    san: Vec<String>,
    /// The service account of the client's token, as NAMESPACE/NAME
    #[arg(long, value_name = "ACCOUNT", env = "METRIKA_GATE_EXPLAIN_SERVICE_ACCOUNT", conflicts_with = "from")]
    service_account: Option<String>,
}

/// The given proofs.
pub(super) struct GivenProofs {
    evidence: Evidence,
    proofs: Proofs,
}

/// The maximum length of a key on stdin, in bytes, with a scheme and spaces.
const LONGEST: usize = 1024;

impl ProofArgs {
    /// Returns the proofs, if any are given.
    ///
    /// # Errors
    /// The error of reading stdin; as a value, the mistake in an argument.
    pub(super) fn read(&self) -> std::io::Result<Result<Option<GivenProofs>, String>> {
        let key = if self.key_stdin {
            let mut text = Zeroizing::new(Vec::with_capacity(2 * LONGEST));
            std::io::stdin().take(number::count(LONGEST)).read_to_end(&mut text)?;
            Some(text)
        } else {
            None
        };
        Ok(self.given(key.as_ref().map(|text| text.as_slice())))
    }

    fn given(&self, key: Option<&[u8]>) -> Result<Option<GivenProofs>, String> {
        let key = match key.map(|text| Offered::default().and_field(text).map(Offered::key)) {
            None => None,
            Some(Ok(Some(key))) => Some(key),
            Some(Ok(None)) => return Err("stdin has no key; expected mgk_...".to_owned()),
            Some(Err(_)) => return Err("the checksum of the key is wrong: it is mistyped or incomplete".to_owned()),
        };
        let names: Option<Arc<[_]>> = self.san.iter().map(|name| SubjectName::parse(name)).collect();
        let names =
            names.ok_or("invalid --san; expected for example spiffe://example.org/etl or dns:etl.example.org")?;
        let names = Some(names).filter(|names| !names.is_empty());
        let service_account = self.service_account.as_deref().map(ServiceAccount::parse);
        let service_account = match service_account {
            Some(None) => return Err("invalid --service-account; expected for example metrika/etl".to_owned()),
            Some(account) => account,
            None => None,
        };
        let proofs = Proofs { key, service_account };
        let peer = Peer::Address(Ipv4Addr::UNSPECIFIED.into());
        let is_given = names.is_some() || proofs != Proofs::NONE;
        let evidence = Evidence { names, ..Evidence::new(ListenerName::new("any"), peer) };
        Ok(is_given.then_some(GivenProofs { evidence, proofs }))
    }
}

impl GivenProofs {
    /// Returns the condition on a proof that keeps the proofs from naming a caller.
    pub(super) fn failing(&self, caller: &Caller) -> Option<ConditionKind> {
        let of_proofs = caller.conditions.iter().filter(|condition| is_of_proof(condition)).cloned();
        let of_proofs = Conditions::new(of_proofs);
        of_proofs.map_or(None, |conditions| conditions.first_failing(&self.evidence, &self.proofs, None))
    }

    /// Whether a caller states one of the proofs.
    pub(super) fn concerns(&self, caller: &Caller) -> bool {
        let holds = |condition: &Condition| {
            is_of_proof(condition)
                && Conditions::new([condition.clone()])
                    .is_ok_and(|one| one.first_failing(&self.evidence, &self.proofs, None) != Some(condition.kind()))
        };
        caller.conditions.iter().any(holds)
    }

    /// Returns the refusal of a request of `caller` with these proofs, if they do not name it.
    pub(super) fn refusal(&self, caller: &Caller, callers: &Callers) -> Option<Rejection> {
        let condition = self.failing(caller)?;
        let unknown = self.proofs.key.and_then(|key| callers.check_key(&key).err());
        Some(unknown.unwrap_or(NoCaller::Failed { caller: caller.id, condition }).into())
    }

    /// Returns the proofs as text; a key as the beginning of its hash.
    pub(super) fn line(&self) -> String {
        let key = self.proofs.key.map(|key| format!("key_sha256 {}...", key.short()));
        let names = self.evidence.names.iter().flat_map(|names| names.iter()).map(|name| format!("san {name}"));
        let account = self.proofs.service_account.as_ref().map(|account| format!("service_account {account}"));
        key.into_iter().chain(names).chain(account).collect::<Vec<_>>().join(", ")
    }

    /// Returns the proofs as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        let names = self.evidence.names.iter().flat_map(|names| names.iter()).map(ToString::to_string);
        json!({
            "key_sha256": self.proofs.key.map(|key| key.to_string()),
            "san": names.collect::<Vec<_>>(),
            "service_account": self.proofs.service_account.as_ref().map(ToString::to_string),
        })
    }

    /// Describes whether the proofs name a caller.
    pub(super) fn identity(&self, caller: &Caller) -> String {
        if let Some(kind) = self.failing(caller) {
            return format!("not proven: {kind} does not hold");
        }
        let others = caller.conditions.iter().filter(|condition| !is_of_proof(condition));
        let others: Vec<_> = others.map(|condition| condition.kind().key()).collect();
        if others.is_empty() { "proven".to_owned() } else { format!("proven, if {} holds too", others.join(" and ")) }
    }

    /// Writes the refusal of a request whose proofs no caller states.
    pub(super) fn write_nobody(&self, out: &mut dyn Write, callers: &Callers) -> std::io::Result<()> {
        let Rejection { reason, .. } =
            self.proofs.key.and_then(|key| callers.check_key(&key).err()).unwrap_or(NoCaller::Unknown).into();
        let answer = reason.answer();
        writeln!(
            out,
            "\ncaller     none\ndecision   refused: {} {} ({})",
            answer.status.as_u16(),
            reason.as_str(),
            answer.message
        )
    }
}

const fn is_of_proof(condition: &Condition) -> bool {
    match condition {
        Condition::Key(_) | Condition::San(_) | Condition::ServiceAccount(_) => true,
        Condition::Listener(_) | Condition::Source(_) | Condition::Uid(_) | Condition::Gid(_) => false,
    }
}
