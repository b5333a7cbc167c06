//! The cursor: it never passes a document that is not done, and it passes every one that is and has none before it that is
//! not.

use std::time::Instant;

use audiohook_collector::elastic::Cursor;
use audiohook_collector::elastic::batch::Batch;
use audiohook_collector::elastic::document::Document;
use audiohook_collector::event::Redaction;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// So many lines are read from the file.
    Read(usize),
    /// Of a request of at most so many documents, those are put off whose bit is set.
    Answered { documents: usize, put_off: u16 },
    /// The first one goes behind the others.
    Rotate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1usize..6).prop_map(Step::Read),
        3 => (1usize..12, any::<u16>()).prop_map(|(documents, put_off)| Step::Answered { documents, put_off }),
        1 => Just(Step::Rotate),
    ];
    prop::collection::vec(step, 1..24)
}

fn at(offset: usize) -> Cursor {
    serde_json::from_value(serde_json::json!({ "file": "00000000000000000000000000000001", "offset": offset })).unwrap()
}

fn line(number: usize) -> String {
    // Of different lengths, so that a document is never taken for its neighbour.
    format!(r#"{{"timestamp":"t","id":"{number}","raw_event":"{}"}}"#, "x".repeat(number % 7))
}

#[test]
fn it_stands_before_the_earliest_document_that_is_not_done() {
    super::run(steps(), |steps| {
        let mut batch = Batch::new("index");
        let mut read = 0;
        // What the batch holds, by the numbers of the lines, in the order in which it would send them.
        let mut model: Vec<usize> = Vec::new();
        for step in steps {
            match step {
                Step::Read(lines) => {
                    for _ in 0..lines {
                        let text = line(read);
                        batch.push(&Document::of(text.as_bytes(), &Redaction::default()).unwrap(), at(read));
                        model.push(read);
                        read += 1;
                    }
                }
                Step::Answered { documents, put_off } => {
                    let texts: Vec<&[u8]> = batch.texts(documents).collect();
                    let sent = texts.len();
                    prop_assert_eq!(sent, documents.min(model.len()));
                    for (text, number) in texts.into_iter().zip(&model) {
                        let action = String::from_utf8(text.to_vec()).unwrap();
                        prop_assert!(action.contains(&format!("\"_id\":\"{number}\"")), "{action} is not of {number}");
                    }
                    let is_put_off = |index: usize| put_off >> index & 1 == 1;
                    batch.settle(sent, Instant::now(), is_put_off);
                    let mut index = 0;
                    model.retain(|_| {
                        index += 1;
                        index > sent || is_put_off(index - 1)
                    });
                }
                Step::Rotate => {
                    batch.rotate();
                    if !model.is_empty() {
                        model.rotate_left(1);
                    }
                }
            }
            prop_assert_eq!(batch.earliest(), model.iter().min().map(|number| at(*number)));
            prop_assert_eq!(batch.len(), model.len());
            for (index, number) in model.iter().enumerate() {
                prop_assert_eq!(batch.record(index), line(*number).into_bytes());
            }
        }
        Ok(())
    });
}
