//! An export as it was asked for, and where clients find it.

use std::fmt;

use cache_engine::frontend::nbd::{ExportAddress, Transport};

/// An export as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct ExportUri {
    text: String,
    address: ExportAddress,
}

impl ExportUri {
    /// The name that clients ask for.
    pub(crate) fn name(&self) -> &str {
        &self.address.name
    }

    /// The way to it, as it was asked for.
    pub(crate) fn transport(&self) -> &Transport {
        &self.address.transport
    }

    /// Where clients find it: what was asked for, but for a port that the system chose.
    pub(crate) fn at(&self, bound: &Transport) -> String {
        match (&self.address.transport, bound) {
            (Transport::Tcp { port: 0, host }, Transport::Tcp { port, .. }) => {
                let transport = Transport::Tcp { host: host.clone(), port: *port };
                ExportAddress { transport, name: self.address.name.clone() }.to_string()
            }
            _ => self.text.clone(),
        }
    }
}

impl std::str::FromStr for ExportUri {
    type Err = <ExportAddress as std::str::FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { text: text.to_owned(), address: text.parse()? })
    }
}

impl fmt::Display for ExportUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
