//! The flow log of a `carnet run --json --log FILE` (docs/flow-log.md), read back.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

/// All lines of one run.
#[derive(Debug)]
pub struct FlowLog {
    /// In the order in which they ended.
    pub flows: Vec<Flow>,
    /// Sockets that cannot be inspected.
    pub sockets: Vec<Value>,
    /// What Carnet thought people should know.
    pub warnings: Vec<String>,
    /// The last line.
    pub summary: Value,
}

/// One flow object.
#[derive(Clone, Debug)]
pub struct Flow(Value);

impl FlowLog {
    /// Reads the file of a run that is over.
    pub fn read(file: &Path) -> Self {
        Self::parse(&fs::read_to_string(file).expect("the flow log"))
    }

    /// The same of its text.
    pub fn parse(text: &str) -> Self {
        let (mut flows, mut sockets, mut warnings, mut summaries) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for line in text.lines() {
            let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
            match object["type"].as_str() {
                Some("flow") => flows.push(Flow(object)),
                Some("socket") => sockets.push(object),
                Some("warning") => warnings.push(object["message"].as_str().expect("a message").to_owned()),
                Some("summary") => summaries.push(object),
                _ => panic!("a line of an unknown type: {line}"),
            }
        }
        assert_eq!(summaries.len(), 1, "one summary, when the run is over: {text}");
        Self { flows, sockets, warnings, summary: summaries.remove(0) }
    }

    /// Flows to this destination.
    pub fn to(&self, destination: SocketAddr) -> Vec<&Flow> {
        self.flows.iter().filter(|flow| flow.destination() == destination).collect()
    }
}

impl Flow {
    /// A field that is a string; `None`: null.
    pub fn text(&self, field: &str) -> Option<&str> {
        match self.field(field) {
            Value::Null => None,
            value => Some(value.as_str().unwrap_or_else(|| panic!("{field} of {} is no string", self.0))),
        }
    }

    /// A field that is a whole number.
    pub fn number(&self, field: &str) -> u64 {
        self.field(field).as_u64().unwrap_or_else(|| panic!("{field} of {} is no number", self.0))
    }

    /// Where the application asked to go.
    pub fn destination(&self) -> SocketAddr {
        self.text("destination").and_then(|text| text.parse().ok()).expect("an address")
    }

    /// Services that had it, in order; whether what follows was inferred, for the service set no record.
    pub fn chain(&self) -> Vec<(&str, bool)> {
        let links = self.field("chain").as_array().expect("an array");
        let link = |link: &'_ Value| link["inferred"].as_bool().expect("true or false");
        links.iter().map(|of| (of["service"].as_str().expect("a name"), link(of))).collect()
    }

    /// Where it failed: "destination", or the service's name.
    pub fn at(&self) -> Option<&str> {
        let at = self.field("at");
        at.as_str().or_else(|| at["service"].as_str())
    }

    /// Payload bytes from and to the application.
    pub fn bytes(&self) -> (u64, u64) {
        (self.number("sent"), self.number("received"))
    }

    /// Whether the flow is that of a service, whose applications cannot be told apart.
    pub fn is_ambiguous(&self) -> bool {
        self.field("ambiguous").as_bool().expect("true or false")
    }

    fn field(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or_else(|| panic!("{} has no {name}", self.0))
    }
}
