//! The groups in which Metrica counts requests.

/// The rate limit group in which Metrica counts a request (<https://yandex.com/dev/metrika/en/intro/quotas>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaGroup {
    /// Reads of management data.
    ClientRead,
    /// Changes of management data.
    ClientWrite,
    /// Reports.
    ReportRead,
    /// The Logs API, with a limit of its own of 10 requests per second.
    Logs,
}

impl QuotaGroup {
    const ALL: [Self; 4] = [Self::ClientRead, Self::ClientWrite, Self::ReportRead, Self::Logs];

    /// The name used in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientRead => "client_read",
            Self::ClientWrite => "client_write",
            Self::ReportRead => "report_read",
            Self::Logs => "logs",
        }
    }

    /// The group with a name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.as_str() == text)
    }
}
