use super::*;
use technique::{Choice, Settings};

fn read(text: &str) -> Result<LearnScales, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

#[test]
fn it_is_read_from_every_spelling_and_written_as_it_was() {
    assert_eq!(read("true").unwrap(), true.into());
    assert_eq!(read("false").unwrap(), LearnScales::default());
    assert_eq!(read("\"lsq\"").unwrap(), true.into());
    let pact: Choice<ScaleLearnings> = Pact { decay: 0.5, ..Pact::default() }.choice().unwrap();
    assert_eq!(read("{\"kind\": \"pact\", \"decay\": 0.5}").unwrap(), pact.into());
    for (text, written) in [
        ("true", "true"),
        ("false", "false"),
        ("\"lsq\"", "true"),
        ("\"lsq_plus\"", "\"lsq_plus\""),
        ("{\"kind\":\"pact\",\"decay\":0.5}", "{\"decay\":0.5,\"kind\":\"pact\"}"),
    ] {
        let value = serde_json::to_value(read(text).unwrap()).unwrap();
        assert_eq!(value, serde_json::from_str::<serde_json::Value>(written).unwrap());
    }
    assert!(read("\"lsqplus\"").unwrap_err().contains("did you mean 'lsq_plus'"));
    assert!(read("{\"kind\": \"pact\", \"decay\": -1}").unwrap_err().contains("decay"));
    assert!(read("3").unwrap_err().contains("true, false"));
}

#[test]
fn bounds_alone_decay() {
    let pact = Pact { decay: 0.25, ..Pact::default() };
    assert_eq!((pact.decay("clip"), pact.decay("scale"), pact.decay("offset"), Lsq {}.decay("clip")), (0.25, 0.0, 0.0, 0.0));
}
