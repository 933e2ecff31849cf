//! The rows of a configuration in the table of [`crate::files`], and the descriptors that it needs.

use std::path::{Path, PathBuf};

use super::service_accounts::ServiceAccounts;
use super::{Bind, Config, ProxyAuth, TokenSource, Upstream};
use crate::files::descriptors::{ConnectionFit, Descriptors};
use crate::files::reading::record_of;
use crate::files::{External, ExternalFile, ExternalPort, Purpose};

/// The file of `state_dir` that holds the counts of the day.
const QUOTA_FILE: &str = "quota.json";

impl TokenSource {
    /// Returns the row of the token's file.
    #[must_use]
    pub fn external(&self) -> ExternalFile {
        ExternalFile::secret(Purpose::Token(self.alias), &self.file, self.allow_mode)
    }

    /// Returns the row of the record beside the token's file.
    #[must_use]
    pub fn external_record(&self) -> ExternalFile {
        ExternalFile::new(Purpose::Record(self.alias), &record_of(&self.file))
    }

    /// Returns the rows of the files that only commands read.
    pub fn external_of_commands(&self) -> impl Iterator<Item = ExternalFile> {
        let row = |purpose, path: &Option<PathBuf>| path.as_deref().map(|path| ExternalFile::new(purpose, path));
        let secret = row(Purpose::ClientSecret(self.alias), &self.origin.client_secret_file);
        secret.into_iter().chain(row(Purpose::RefreshToken(self.alias), &self.origin.refresh_file))
    }
}

impl External {
    /// Builds the table for `config`, which was read from `file`; `None` if it was not read from a file.
    #[must_use]
    pub fn of(config: &Config, file: Option<&Path>) -> Self {
        let identity = config.identity.as_ref().map(|identity| &identity.place);
        let named = |purpose, path: Option<&Path>| path.map(|path| ExternalFile::new(purpose, path));
        let mut files: Vec<_> = [
            named(Purpose::Configuration, file),
            named(Purpose::Upstream, config.upstream.ca_file.as_deref()),
            named(Purpose::Identity, identity.and_then(|place| place.ca_file.as_deref())),
            config.upstream.proxy.as_ref().and_then(|proxy| proxy.auth.as_ref()).map(ProxyAuth::external),
            named(Purpose::OAuth, config.oauth.ca_file.as_deref()),
            named(Purpose::Keys, config.keys_file.as_deref()),
        ]
        .into_iter()
        .flatten()
        .collect();
        files.extend(config.service_accounts.iter().flat_map(ServiceAccounts::external));
        files.extend(config.tokens.iter().flat_map(|token| [token.external(), token.external_record()]));
        files.extend(config.tokens.iter().flat_map(TokenSource::external_of_commands));
        files.extend(config.listeners.iter().filter_map(|listener| match &listener.bind {
            Bind::Unix { path, .. } => named(Purpose::Listener(listener.name), Some(path)),
            Bind::Tcp(_) => None,
        }));
        let store = config.store();
        files.extend(store.and_then(|store| named(Purpose::Store, store.ca_file.as_deref())));
        files.extend(store.and_then(|store| named(Purpose::StorePassword, store.password_file.as_deref())));
        files.extend(
            config
                .listeners
                .iter()
                .flat_map(|listener| listener.tls.iter().flat_map(|tls| tls.external(listener.name))),
        );
        files.extend(
            config.state_dir.as_ref().map(|folder| ExternalFile::new(Purpose::State, &folder.join(QUOTA_FILE))),
        );
        let store = store.map(|store| ExternalPort { purpose: Purpose::Store, port: store.port });
        let keys = config.service_accounts.as_ref().and_then(ServiceAccounts::server);
        let keys = keys.map(|server| connected(Purpose::KeySet, &server.place));
        // The OAuth server is not among the ports: only commands connect to it, and not the process that serves.
        Self { files, ports: upstream_ports(config).chain(store).chain(keys).collect() }
    }
}

/// Returns the row of the port of a server that is not reached through the proxy.
fn connected(purpose: Purpose, place: &Upstream) -> ExternalPort {
    ExternalPort { purpose, port: place.connect_to.as_ref().map_or(place.port, |(_, port)| *port) }
}

/// Returns the ports of Metrica and of `identity`: that of the proxy, if there is one, because it leads to both.
fn upstream_ports(config: &Config) -> impl Iterator<Item = ExternalPort> {
    let identity = config.identity.as_ref().map(|identity| connected(Purpose::Identity, &identity.place));
    let ports = match &config.upstream.proxy {
        Some(proxy) => [Some(ExternalPort { purpose: Purpose::Proxy, port: proxy.port }), None],
        None => [Some(connected(Purpose::Upstream, &config.upstream)), identity],
    };
    ports.into_iter().flatten()
}

impl Config {
    /// Returns the store of the quotas, if configured.
    #[must_use]
    pub fn store(&self) -> Option<&super::store::Store> {
        self.quota.as_ref().and_then(|quota| quota.store.as_ref())
    }

    /// Returns the numbers of connections that fit `descriptors`, if the configured ones do not.
    #[must_use]
    pub fn lacks_descriptors(&self, descriptors: Descriptors) -> Option<ConnectionFit> {
        let wanted = ConnectionFit { callers: self.limits.connections, upstream: self.upstream.connections };
        descriptors.short(wanted, self.listeners.len())
    }

    /// Lowers the connection limits to `descriptors`. Returns the lowered limits, if any.
    #[must_use]
    pub fn fit(&mut self, descriptors: Descriptors) -> Option<ConnectionFit> {
        let fit = self.lacks_descriptors(descriptors)?;
        (self.limits.connections, self.upstream.connections) = (fit.callers, fit.upstream);
        Some(fit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_the_table_has_everything_that_a_configuration_names() {
        let text = "
listeners: [{name: app, unix: {path: /run/gate/app.sock}}, {name: tcp, address: '127.0.0.1:0'}]
upstream: {connect_to: 'localhost:8443'}
identity: {url: 'https://login.yandex.ru/info'}
state_dir: /var/lib/gate
quota: {store: {redis: 'redis://gate@localhost', password_file: /c/password}}
tokens: {one: {file: a/one, scopes: [metrika:read]}, two: {file: /b/two, scopes: [metrika:read]}}
callers: [{id: a, scopes: [metrika:read], tokens: [one], match: {listener: app, uid: [7]}}]
";
        let config = Config::parse(text, Path::new("gate.yaml")).unwrap();
        let external = External::of(&config, Some(Path::new("gate.yaml")));
        let files: Vec<_> =
            external.files.iter().map(|file| format!("{}: {}", file.purpose, file.path.display())).collect();
        assert_eq!(
            files,
            [
                "the configuration: gate.yaml",
                "token one: a/one",
                "record of token one: a/one.json",
                "token two: /b/two",
                "record of token two: /b/two.json",
                "listener app: /run/gate/app.sock",
                "password of the quota store: /c/password",
                "state: /var/lib/gate/quota.json"
            ]
        );
        let ports: Vec<_> = external.ports.iter().map(|port| format!("{}: {}", port.purpose, port.port)).collect();
        assert_eq!(ports, ["upstream: 8443", "identity: 443", "quota store: 6379"]);
        let through = text.replace("{connect_to: 'localhost:8443'}", "{proxy: 'http://proxy:3128'}");
        let through = External::of(&Config::parse(&through, Path::new("gate.yaml")).unwrap(), None);
        let ports: Vec<_> = through.ports.iter().map(|port| format!("{}: {}", port.purpose, port.port)).collect();
        assert_eq!(ports, ["proxy: 3128", "quota store: 6379"], "it leads to Metrica and Yandex ID");
        assert_eq!(external.read_with_it().count(), 0);
        assert!(
            external.watched().contains(Path::new("/b"))
                && external.watched().contains(&std::env::current_dir().unwrap())
        );
    }
}
