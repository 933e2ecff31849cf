#!/usr/bin/env python3
"""Takes each protection away, one at a time, and sees that a test fails.

    tests/mutations.py            all of them: about half a minute each
    tests/mutations.py R-11 R-15  those of these promises
    tests/mutations.py --missing  those that docs/decisions/0016-mutations.md does not have yet
    tests/mutations.py --write    all of them, and writes that page; with promises or --missing, their rows of it
    tests/mutations.py --check    only whether each of them can still be made

A mutation is an edit of one file: a text that stands there exactly once, and what it becomes. The tests that are run are
named by a filter of nextest, and at least one of them has to fail. A mutation that does not compile, or whose text is not
found, fails the run: then this list is to be mended. It works on a copy and leaves the repository alone.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "docs/decisions/0016-mutations.md"

# Promise, what is taken away, file, text, what it becomes, tests; further edits where one does not do.
MUTATIONS = [
    ("R-1", "fields that Connection names go nowhere", "src/gateway/headers.rs",
     "    remove_named_by_connection(headers);\n    let coding", "    let coding", "credentials::fields_that_connection_names"),
    ("R-1", "our credential is put on last", "src/gateway/inject.rs",
     "fields.insert(AUTHORIZATION, authorization.clone());",
     "fields.insert(AUTHORIZATION, authorization.clone());\n        clean_request(fields, |_| {});", "credentials::"),
    ("R-1", "a byte beyond ASCII hides no nominated field", "src/lists.rs", "fields.get_all(name).iter();",
     "fields.get_all(name).iter().filter(|line| line.to_str().is_ok());", "lists:: | headers::"),
    ("R-2", "fields go up by an allow-list", "src/gateway/headers.rs", "    keep(headers, goes_up);\n", "", "credentials::"),
    ("R-2", "credential pairs leave the query", "src/target.rs",
     "    if !query.split('&').any(is_credential) {", "    if query.len() < 1_000_000 {", "credentials::"),
    ("R-2", "a credential that is dropped is counted", "src/gateway/headers.rs", '        | "oauth_token"\n', "", "credentials::exactly_one"),
    ("R-3", "a caller's credential never wins", "src/gateway/headers.rs", "    keep(headers, goes_up);\n",
     "    keep(headers, |name| goes_up(name) || name == header::AUTHORIZATION);\n", "credentials::",
     ("src/gateway/inject.rs", "fields.insert(AUTHORIZATION, authorization.clone());",
      "fields.entry(AUTHORIZATION).or_insert_with(|| authorization.clone());")),
    ("R-4", "no token, no request", "src/gateway/inject.rs",
     "let ready = snapshot.ready(decision.tokens().first())?;",
     "let sender = crate::worker::Sender { alias: decision.grant().token(), scopes: crate::scope::ScopeSet::EMPTY, epoch: 0 };\n        "
     'let none = crate::worker::Ready { sender, authorization: HeaderValue::from_static("OAuth none") };\n        '
     "let ready = snapshot.ready(decision.tokens().first()).unwrap_or(&none);", "rejections::every_reason",
     ("src/decide.rs", "(Err(reason), None) => return Err(*reason),", "(Err(_), None) => (position, None),")),
    ("R-5", "the alphabet of tokens", "src/token.rs",
     "let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');",
     "let fits = |byte: &u8| *byte != b'\\n';", "token::"),
    ("R-6", "a path has one meaning", "src/target.rs", "    rest.split(|byte| *byte == b'/').all(segment_is_canonical)",
     "    rest.split(|byte| *byte == b'/').all(|segment| segment_is_canonical(segment) || !segment.is_empty())", "rejections::a_target"),
    ("R-6", "what is beyond ASCII in a path is UTF-8", "src/target.rs",
     "    !beyond_ascii || String::from_utf8(plain(segment)).is_ok_and(|text| !text.contains(char::is_control))",
     "    !beyond_ascii || !plain(segment).is_empty()", "target::"),
    ("R-7", "a parameter has one spelling", "src/target.rs",
     "all(|pair| pair_is_plain(pair) && names.add_pair(pair))", "all(|pair| names.add_pair(pair))", "target:: | properties::an_accepted_query"),
    ("R-7", "no name stands behind a semicolon, with a value or without", "src/target.rs",
     "!looks_like_credential(name) && Names::of(name).is_empty() && (!is_a_name || is_plain())",
     "!looks_like_credential(name) && (!is_a_name || is_plain() && Names::of(name).is_empty())", "target:: | spellings::what_goes_out"),
    ("R-7", "ids stand once", "src/target/names.rs", "        both & Self::ONCE.0 == 0", "        both & Self::ONCE.0 <= u16::MAX", "credentials::ids_stand_once"),
    ("R-7", "values that are joined all count", "src/target/canonical.rs", "    if value_of(joined).is_empty() {", "    if !value.is_empty() {",
     "spellings::no_spelling_of_another_counter_passes | spellings::what_goes_out"),
    ("R-7", "without spaces, every number stays", "src/target/canonical.rs", "are_numbers.then(|| format!(\"{name}={}\", numbers.join(\",\")))",
     "are_numbers.then(|| format!(\"{name}={}\", numbers.first().unwrap_or(&\"\")))", "spellings::no_spelling_of_another_counter_passes | spellings::what_goes_out"),
    ("R-7", "what is joined goes out once", "src/target/names.rs", "if both & Self::JOINED.0 != 0 {", "if both & Self::JOINED.0 == u16::MAX {",
     "spellings::what_goes_out"),
    ("R-7", "what is encoded keeps its bytes", "src/target/canonical.rs", "encoded.extend([b'%', digit(byte >> 4), digit(byte & 15)]);",
     "encoded.push(b'7');", "spellings::no_spelling_of_another_counter | spellings::what_goes_out | canonical::rules_hold"),
    ("R-7", "only an empty callback goes", "src/target/canonical.rs", "if names == Names::CALLBACK && value_of(pair).is_empty() {",
     "if names == Names::CALLBACK {", "canonical::rule | spellings::what_goes_out"),
    ("R-6", "of a path, a slash goes and no segment", "src/target/canonical.rs", "begun.strip_suffix('/').unwrap_or(begun)",
     "begun.rsplit_once('/').map_or(begun, |(bare, _)| bare)", "spellings::what_goes_out"),
    ("R-6", "nor a segment at its beginning", "src/target/canonical.rs", ".filter(|rest| rest.starts_with('/'))",
     ".and_then(|rest| rest.get(rest.find('/')?..))", "spellings::what_goes_out"),
    ("R-6", "a slash goes only where the catalogue has the path", "src/target/canonical.rs", "!path_is_canonical(bare.as_bytes()) || !is_path(bare)",
     "!path_is_canonical(bare.as_bytes())", "canonical:: | rejections::a_target"),
    ("R-7", "what goes out is checked once more", "src/target/origin.rs", "let names = check(form.path(), form.query(), limit)?;",
     "let names = check(form.path(), form.query(), limit).unwrap_or_default();", "canonical:: | spellings::"),
    ("strict", "a strict caller is refused what is changed", "src/decide.rs", "if let Some(broken) = self.encoded.or(target.was_changed())",
     "if let Some(broken) = target.was_changed()", "canonical::a_strict_caller"),
    ("strict", "each request on a connection is judged as it came", "src/gateway/connection.rs",
     ".filter(|(number, _)| *number == request)?;", ".filter(|(number, _)| *number <= u64::MAX)?;", "canonical::of_requests"),
    ("R-7", "parameters do not come in a form", "src/decide.rs",
     "if self.body.is_some_and(|body| body.is_form() && (strict || body.retype().is_none())) {",
     "if self.body.is_some_and(|body| body.is_form() && body.shortest == u64::MAX) {", "typed:: | credentials::parameters_do_not_come_in_a_body"),
    ("R-7", "nor in one that may be JSON", "src/gateway/owed.rs", "        return Err(Reason::FormBody.into());\n", "", "typed:: | credentials::parameters_do_not_come_in_a_body"),
    ("R-7", "what a page could have sent stays what it is said to be", "src/decide/body.rs", "fields.keys().any(is_of_pages)", "fields.keys().all(is_of_pages)", "body:: | typed::"),
    ("R-7", "JSON leaves as JSON", "src/gateway/owed.rs", 'fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));', "", "typed::"),
    ("counters", "what a packed body holds is bounded", "src/gateway/owed.rs", ".take(most + 1)", ".take(u64::MAX)", "rules_bodies::a_packed"),
    ("counters", "names of parts are looked at", "src/decide/owed.rs", "body.filter(|body| body.is_in_parts())", "body.filter(|body| body.is_in_parts() && false)", "rules_parts::a_part"),
    ("counters", "also of those that come later", "src/gateway/body.rs", "if let (Some(watch), Some(data)) = (&mut self.watch, frame.data_ref())", "if let (Some(watch), Some(data), false) = (&mut self.watch, frame.data_ref(), true)", "rules_parts::a_later"),
    ("counters", "parts that are packed are refused", "src/decide/owed.rs", "self.parts.is_some() && body.is_coded()", "self.parts.is_some() && body.is_coded() && false", "rules_parts::a_part"),
    ("counters", "lines of parts end in one way", "src/rules/parts.rs", "if !is_fit || self.fields.len() == LONGEST {", "if self.fields.len() == LONGEST {", "rules::parts"),
    ("whose fault", "what there is no memory for is not lost", "src/gateway/ahead.rs", "            self.unfit = Some(data);", "            drop(data);", "read_ahead::a_file"),
    ("counters", "a line of a part that continues is read on", "src/rules/parts.rs", "            if self.fields.ends_with(END) {", "            if self.fields.ends_with(b\"\\r\\n\") {", "rules::parts"),
    ("counters", "a name of a part in another form is refused", "src/rules/parts.rs", "Some(_) if between.contains(&b'*') => return Err(Breach::PartName)", "Some(_) if between.contains(&b'*') => {}", "rules::parts"),
    ("counters", "only files of uploads are not read", "src/decide/owed.rs", "if due.is_data && body.is_file()", "if due.is_data", "rules_bodies::of_uploads"),
    ("R-8", "forwarding fields stay here", "src/gateway/headers.rs",
     '        "accept"\n            | "accept-charset"', '        "accept"\n            | "x-forwarded-for"\n            | "accept-charset"',
     "identify::"),
    ("R-9", "methods are case-sensitive", "src/operation/verb.rs", "verb.as_str() == method.as_str()",
     "verb.as_str().eq_ignore_ascii_case(method.as_str())", "rejections::methods"),
    ("R-9", "no parameter says another method", "src/target.rs", '    name.eq_ignore_ascii_case(b"_method")', '    name == b"no method"',
     "identify::no_field_of_a_request_says"),
    ("R-10", "Host is the upstream's", "src/upstream/request.rs", "    write_field(out, &HOST, host);\n",
     "    let _ = host;\n    write_field(out, &HOST, &HeaderValue::from_static(\"elsewhere\"));\n", "hosts::the_upstream_is_a_constant"),
    ("R-11", "the strict reader under hyper", "src/server/caller_io.rs", "self.framing.look_at(arrived)", "Ok::<(), Stop>(())",
     "framing"),
    ("R-11", "one length", "src/server/framing.rs",
     "if self.head.length.replace(length).is_some() {", "if self.head.length.replace(length).is_some_and(|_| false) {",
     "framing::"),
    ("R-11", "one Host", "src/server/framing.rs", "if again || !same || !is_host {",
     "if again && !same {", "framing::"),
    ("R-11", "a line ends with CR LF", "src/server/framing.rs", 'line.strip_suffix(b"\\r\\n")',
     'line.strip_suffix(b"\\r\\n").or_else(|| line.strip_suffix(b"\\n"))', "framing"),
    ("R-11", "the end of a chunk", "src/server/framing.rs", "        (_, _) => return Err(Malformed::ChunkEnd),\n        }\n        Ok(1)",
     "        (_, _) => self.state = State::ChunkSize,\n        }\n        Ok(1)", "framing_bodies::"),
    ("R-11", "forbidden trailers", "src/server/framing.rs", "if line::is_forbidden_in_trailers(name) {",
     "if name.is_empty() && line::is_forbidden_in_trailers(name) {", "framing_bodies::"),
    ("R-11", "a malformed request is in the log with its kind", "src/gateway/record.rs",
     "    log_cause(&exchange, reason, Some(kind), &kind.to_string());\n", "", "malformed::"),
    ("R-11", "the answer to a malformed request names the rule", "src/gateway/record.rs",
     "let answer = malformed.map_or(reason.answer(), of_malformed);", "let answer = reason.answer();", "malformed::"),
    ("R-11", "another protocol is told from a malformed request", "src/line/diagnosis.rs",
     "if let Some(protocol) = of_another_protocol(line) {", "if let (Some(protocol), true) = (of_another_protocol(line), line.is_empty()) {", "malformed:: | diagnosis::"),
    ("R-11", "an unread body ends the connection, and the answer says so", "src/gateway/record.rs",
     "    if !exchange.request_is_complete() {", "    if exchange.request_id.is_empty() {", "early::a_refused_write"),
    ("R-11", "an ambiguous answer is none", "src/gateway/forward.rs", "if !framing::is_sound(head.status, &head.headers) {",
     "if head.headers.is_empty() && !framing::is_sound(head.status, &head.headers) {", "answers"),
    ("R-12", "a 101 is no answer", "src/upstream/framing.rs", "other => (200..600).contains(&other.as_u16()),", "other => (100..600).contains(&other.as_u16()),", "forward:: | interim:: | answers"),
    ("R-12", "what comes behind an answer ends its connection", "src/upstream/http1.rs",
     " && wire.arrived.is_empty() && wire.buffer.is_empty()", "", "poison::"),
    ("R-12", "an answer before the end of its request ends its connection", "src/upstream/http1.rs", "head.keep_alive && !early &&",
     "head.keep_alive && (!early || early) &&", "stuck::"),
    ("R-12", "an answer that breaks off is not whole", "src/upstream/answer.rs", "            Self::Length(_) | Self::Chunks(_) => None,",
     "            Self::Length(_) | Self::Chunks(_) => {\n                *self = Self::Length(0);\n                Some(())\n            }", "cut:: | answers"),
    ("R-12", "what comes before an answer is bounded", "src/upstream/wire.rs", "if self.read > HEAD_BYTES {", "if self.read > HEAD_BYTES * 1000 {",
     "answers::interim"),
    ("R-12", "upgrades do not go up", "src/gateway/headers.rs",
     '        "accept"\n            | "accept-charset"', '        "accept"\n            | "upgrade"\n            | "http2-settings"\n            | "accept-charset"',
     "credentials:: | framing::what_is_unusual"),
    ("R-13", "connections of a peer are bounded", "src/server/places.rs", "        if open >= limit {", "        if open >= limit && limit == 0 {",
     "limits::"),
    ("R-13", "a header has so many fields", "src/server/framing.rs",
     "if self.fields > self.bounds.header_fields {", "if self.fields > self.bounds.header_fields * 1000 {", "limits:: | rejections::headers"),
    ("R-13", "a header has its time", "src/gateway/connection.rs",
     "Phase::Header => Some(self.since.get() + timeouts.request_headers),", "Phase::Header => None,", "timeouts::a_header"),
    ("R-13", "a request as a whole has its time", "src/gateway/connection.rs",
     "under_way.then(|| self.request_since.get() + timeouts.request + to_say_so)",
     "under_way.then(|| self.request_since.get() + timeouts.request * 1000 + to_say_so)", "whole_request::before_the_answer"),
    ("R-9", "hyper reads header blocks of HTTP/2 whole", "src/server/blocks.rs",
     "if frame.kind == kind::HEADERS && !frame.has(END_HEADERS) {", "if self.most == 0 && !frame.has(END_HEADERS) {",
     "callers_http2_frames::a_malformed_request_in_pieces"),
    ("R-13", "a header block of HTTP/2 has a bound", "src/server/blocks.rs",
     "if before.saturating_add(frame.length) > self.most {", "if before.saturating_add(frame.length) > usize::MAX - 1 {",
     "blocks::rule_2 | callers_http2_frames::a_header_block"),
    ("R-13", "floods of frames end their connection", "src/server/frames.rs", "self.left.checked_sub(amount).ok_or(Fault::Flood)?", "self.left.saturating_sub(amount)", "callers_http2_floods"),
    ("R-14", "a redirect away is not passed on", "src/gateway/forward.rs", "if !redirect::keep_here(", "if head.headers.is_empty() && !redirect::keep_here(",
     "redirect"),
    ("R-15", "a token in a body", "src/gateway/reflection.rs", "piece: if hit { overwrite(piece, &overwritten) } else { piece }",
     "piece: if hit && overwritten.is_empty() { overwrite(piece, &overwritten) } else { piece }", "reflection"),
    ("R-15", "a token in a field", "src/gateway/forward.rs", "if secret.take_from(&mut head.headers) {",
     "if head.headers.is_empty() && secret.take_from(&mut head.headers) {", "reflection:: | redirects::"),
    ("R-15", "only what can be looked into is asked for", "src/gateway/inject.rs", "fields.insert(ACCEPT_ENCODING, wanted.coding);", "let _ = wanted.coding;",
     "reflection::only_gzip"),
    ("R-16", "the token's field is sensitive", "src/token.rs", "set_sensitive(true)", "set_sensitive(false)", "secrets:: | token::"),
    ("R-16", "the process cannot be read by its user", "src/app.rs",
     "    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);\n",
     "    let _ = DumpableBehavior::NotDumpable;\n", "canary::the_memory"),
    ("R-16", "no core dump", "src/app.rs", "    let _ = rustix::process::setrlimit(Resource::Core, none);\n", "    let _ = none;\n", "canary::the_memory"),
    ("R-17", "what is not plain is escaped in lines", "src/telemetry/access.rs", "0..=0x1f | 0x7f.. => line.push(b'?'),",
     "0..=0x1f => line.push(b'?'),\n            0x7f.. => line.push(*byte),", "access:: | forging::"),
    ("R-18", "what comes back is listed", "src/gateway/headers.rs", "    keep(headers, |name| comes_back(name.as_str().as_bytes()));\n", "", "headers:: | credentials::answers"),
    ("R-19", "a host is known", "src/host.rs", "            Host::Name(name) => self.has_name(name),", "            Host::Name(name) => self.has_name(name) || !name.is_empty(),",
     "hosts::"),
    ("R-19", "browsers are refused", "src/decide/admission.rs", '        "origin"\n            | "sec-fetch-site"', '        "sec-fetch-site"', "hosts::browsers"),
    ("R-19", "a loop ends", "src/decide/via.rs", ".any(names_a_gate)", ".any(|element| element.is_empty() && names_a_gate(element))", "hosts::a_loop"),
    ("R-19", "no answer is guessed at", "src/gateway/record.rs",
     '        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));\n', "        let _ = X_CONTENT_TYPE_OPTIONS;\n",
     "reflection::a_page_comes"),
    ("R-20", "networks that together are everyone say nothing", "src/caller/condition.rs",
     "    let merged = merged(networks);\n    [ipv4", "    let merged: Vec<Ipv6Net> = networks.iter().map(|network| as_ipv6(*network)).collect();\n    [ipv4",
     "config::tests::a_remote_listener"),
    ("files", "a configuration that everyone can write is not taken", "src/file/guard.rs",
     "            Self::Trusted => {}\n", "            Self::Trusted => return Ok(opened),\n", "config::what_everyone | external::"),
    ("files", "nor a token in a folder that everyone can write", "src/file/guard.rs",
     "secret.check(&metadata, rustix::process::geteuid().as_raw())?;", "return secret.check(&metadata, rustix::process::geteuid().as_raw()).map(|()| opened);", "config::what_everyone | guard::"),
    ("files", "a token that others can read is not taken", "src/file/guard.rs",
     "secret.check(&metadata, rustix::process::geteuid().as_raw())?;", "let _ = secret.check(&metadata, 0);", "tokens::tests::rule_2 | guard::"),
    ("files", "allow_mode counts on a read-only mount alone", "src/file/guard.rs", "self.allow_mode.filter(|_| self.mount == Mount::ReadOnly)",
     "self.allow_mode.filter(|_| self.mount == Mount::ReadOnly || self.mount == Mount::Writable)", "guard::tests::rule_2 | read_only::"),
    ("files", "allow_mode allows no more than it says", "src/file/guard.rs", "|allowed| open_to & !allowed == 0)", "|_| open_to < 0o100)",
     "guard::tests::rule_2"),
    ("files", "check holds each file to its row", "src/cli/files.rs", "            found.mistakes.push((row.purpose,", "            let _: (Purpose, Warning) = ((row.purpose,", "external::check_names | config::what_everyone"),
    ("files", "a file that is read is within the sandbox", "src/sandbox.rs", "external.read().flat_map(", "external.read_with_it().flat_map(", "external::every_file"),
    ("files", "a file that is read is watched", "src/external.rs", "        self.read().flat_map(", "        self.read_with_it().flat_map(", "external::every_file"),
    ("readiness", "a file that cannot be used is named", "src/reload/configuration.rs", "        self.meters.files_now(external.read().filter_map(trouble).collect());\n", "        let _ = external.read().filter_map(trouble).count();\n", "external::readiness"),
    ("readiness", "so is a socket that nobody can connect to", "src/crew/sockets.rs", "again.as_ref().err().map(", "again.as_ref().err().filter(|_| false).map(", "external::readiness"),
    ("readiness", "a listener without its socket is not ready", "src/readiness.rs", " && state.sockets.keys().all(is_open)", " && (state.sockets.keys().all(is_open) || true)", "external::readiness"),
    ("files", "nor that others write", "src/config/policy.rs", "*mode <= 0o777 && mode & 0o002 == 0", "*mode <= 0o777", "config::tests::a_mode"),
    ("R-16", "an address with a token in the place of a file is not repeated", "src/config/policy.rs",
     'if text.contains("://") || text.contains("access_token") {', 'if text.contains("://") && text.is_empty() {', "config::a_secret_that_stands_for_its_file"),
    ("R-16", "a token that is pasted with more is not repeated", "src/token.rs", "        if let Some(bad) = pasted(text) {",
     "        if let Some(bad) = pasted(text).filter(|bad| *bad == BadToken::Word) {", "config::a_token_that_is_none"),
    ("R-20", "a socket is made with its permissions", "src/server/listen.rs",
     "let before = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(!mode & 0o777));",
     "let before = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(mode & 0));", "identify::a_socket"),
    ("R-20", "every condition that is stated must hold", "src/caller/table.rs", "keep_first(&mut self.users_in_groups, pairs, position);",
     "keep_first(&mut self.users, pairs.map(|(uid, _)| uid), position);", "caller:: | conditions:: | properties::the_caller | identify::"),
    ("R-20", "a condition that is in no key matches nobody", "src/caller/table.rs", "        (own == conditions).then_some(self)\n",
     "        (own <= conditions).then_some(self)\n", "caller::"),
    ("R-20", "the listener that is stated must be that of the connection", "src/caller/table.rs", "(*stated == listener).then_some(keys)",
     "(*stated <= listener || *stated > listener).then_some(keys)", "caller:: | conditions:: | properties::the_caller | identify::"),
    ("R-21", "admin: who takes too long", "src/admin.rs", "const WHOLE: Duration = Duration::from_secs(15);", "const WHOLE: Duration = Duration::from_secs(1500);",
     "admin::who_reads_nothing"),
    ("R-21", "admin: a page reads nothing", "src/admin.rs", "        if is_from_a_page(request.headers()) {", "        if request.headers().is_empty() && is_from_a_page(request.headers()) {",
     "admin::a_page"),
    ("reload", "what was refused is judged again", "src/reload/source.rs", "        self.again = Some(now + pause);\n", "", "reload_states:: | source::"),
    ("reload", "a change of what is read with it counts", "src/reload/source.rs", "let seen = Judged { bytes, others: self.others() };\n        if", "let seen = Judged { bytes, others: self.judged.others.clone() };\n        if", "watching:: | reload_states::at_rest"),
    ("reload", "a configuration that is away is said", "src/reload/source.rs", "        away.said = Some(error.clone());\n        Change::Away(error)", "        away.said = Some(error);\n        Change::None", "reload_states::a_configuration"),
    ("reload", "a want of descriptors is no mistake of the configuration", "src/reload/source.rs", "is_some_and(|error| Need::File.found_none(&error))", "is_some_and(|error| Need::File.found_none(&error) && false)", "descriptors::"),
    ("reload", "a wrong token that is gone for a moment stays", "src/reload/tokens.rs", "(trouble.since, trouble.missing) = (now, missing);", "trouble.missing = missing;", "reload_states::a_wrong_token | reload::tokens::"),
    ("sockets", "another's file is not removed", "src/server/listen.rs", "self.file.as_ref().filter(|file| file.is_own())", "self.file.as_ref()", "sockets::what_stands"),
    ("reload", "its return is said", "src/reload/source.rs", "None if is_back => Change::Back", "None if is_back => Change::None", "reload_states::a_configuration"),
    ("reload", "links on the way are watched", "src/external.rs", "if target.is_some() || left.is_empty() {", "if left.is_empty() {", "external::tests::rule_2"),
    ("reload", "the watch of a folder that is made again is made again", "src/reload/folders.rs", "            let is_there = !gone.contains(folder);", "            let is_there = !gone.contains(folder) || true;", "folders::"),
    ("R-11", "who is trusted is nobody's to write", "src/external.rs", "Self::Configuration | Self::Upstream | Self::Identity => Guard::Trusted,", "Self::Configuration => Guard::Trusted,\n            Self::Upstream | Self::Identity => Guard::Made,", "reload_states::an_authority | external::"),
    ("metrics", "each token and reason has its zero", "src/metrics.rs", "self.refusals.entry((Some(token.alias), Refusal::Upstream(*cause))).or_default();", "let _ = cause;", "metrics::series_of_refusals"),
    ("readiness", "one team's token is not everybody's", "src/reload/served.rs", "served.some |= lacks.len() < caller.tokens.len();", "served.some |= lacks.is_empty() && lacking.is_empty();", "reload::without_its_token"),
    ("R-22", "a reload keeps to the sandbox of the start", "src/reload/configuration.rs", "        self.sandbox.permits(&Needs::of(&External::of(&config, Some(file))))?;\n",
     "        let _ = Needs::of(&External::of(&config, Some(file)));\n", "sandbox::a_reload"),
    ("R-22", "a configuration is taken when it has settled", "src/reload/source.rs", "SETTLED: Duration = Duration::from_secs(1)",
     "SETTLED: Duration = Duration::ZERO", "reload_half::a_configuration"),
    ("R-23", "nesting is bounded", "src/config/document.rs", "    if let Some(line) = too_deep(text) {", "    if let Some(line) = too_deep(text).filter(|line| *line == 0) {",
     "yaml::"),
    ("R-23", "the certificate's name is verified", "src/upstream.rs", "server_name: ServerName::try_from(settings.host.clone())?,",
     'server_name: ServerName::try_from("wrong.example")?,', "tls::"),
    ("R-24", "only what changes nothing is repeated", "src/gateway/forward.rs",
     "        !exchange.acts() && lease.nothing_was_read()", "        lease.nothing_was_read()", "retry"),
    ("R-24", "on HTTP/2, no write is repeated after a plain close", "src/gateway/forward.rs",
     "!exchange.acts() && error.is_of_a_shared_connection()", "error.is_of_a_shared_connection()", "retry_http2::"),
    ("R-24", "on HTTP/2, nothing with a body is repeated", "src/gateway/forward.rs",
     "lease.is_http2() && lease.is_reused() && request.body.is_end_stream();", "lease.is_http2() && lease.is_reused();", "retry_http2::"),
    ("R-24", "nothing is sent on a connection that ended while it was idle", "src/gateway/forward.rs",
     "if lease.ready().await {", "if lease.ready().await || lease.is_reused() {", "retry:: | poison::"),
    ("sandbox", "the process keeps to what it needs", "src/app.rs", "if config.sandbox { Sandbox::enter(&needs) }", "if config.sandbox && config.listeners.is_empty() { Sandbox::enter(&needs) }",
     "sandbox::"),
    ("token health", "a token that is not taken is parked", "src/reload/generation.rs",
     "filter(|concern| concern.epoch == epoch)", "filter(|concern| concern.epoch > epoch)", "health::"),
    ("token health", "another token in the file ends it", "src/reload/generation.rs",
     "filter(|slot| slot.token == *token)", "filter(|slot| slot.token.is_some() == token.is_some())", "health::"),
    ("token health", "a standby takes over", "src/decide.rs", "(Err(_), Some(standby)) => (standby, None),", "(Err(reason), Some(_)) => return Err(*reason),", "health::"),
    ("token health", "a token that is taken again is used again", "src/health/machine.rs",
     "                self.enter(State::Healthy, now);\n                self.due = None;\n                self.next_round(now, settings);\n            }\n            (Conclusion::Rejected, State::Healthy)",
     "                self.due = None;\n                self.next_round(now, settings);\n            }\n            (Conclusion::Rejected, State::Healthy)", "health:: | suspicion::"),
    ("token health", "only a probe parks a token", "src/health/machine.rs",
     "                self.enter(State::Suspect, now);\n                self.wait = settings.probe_after;\n                if self.asking {",
     "                self.enter(State::Rejected, now);\n                self.wait = settings.probe_after;\n                if self.asking {", "machine:: | health:: | suspicion::"),
    ("token health", "a success is trusted for ten seconds", "src/health/machine.rs", "pub const TRUST: Duration = Duration::from_secs(10);", "pub const TRUST: Duration = Duration::from_secs(0);", "machine:: | suspicion::"),
    ("token health", "after a false alarm it is calm", "src/health/machine.rs", "self.calm = Some((now + calm, calm));", "let _ = calm;", "machine:: | health::"),
    ("token health", "a success since the probe outweighs it", "src/health/machine.rs", "(Conclusion::Rejected, State::Suspect) if succeeded_since =>", "(Conclusion::Rejected, State::Suspect) if succeeded_since && self.stands_by =>", "machine::"),
    ("token health", "a balancer's 401 is not Metrica's word", "src/probe/question.rs",
     "        (ErrorType::Other, 404) => Reply::Absent,", "        (ErrorType::Other, 401) => Reply::Invalid,\n        (ErrorType::Other, 404) => Reply::Absent,", "question:: | suspicion::"),
    ("token health", "a captive portal accepts no token", "src/health/ask.rs", "question == Question::List && !is_list(body)", "question == Question::Accounts && !is_list(body)", "suspicion::"),
    ("token health", "the refused request hears what is concluded", "src/health.rs", "self.concluded.extend(patient.waiting.drain(..)", "self.concluded.extend(patient.waiting.drain(..0)", "health::"),
    ("token health", "a question that hangs is given up", "src/health/ask.rs", "const LONGEST: Duration = Duration::from_secs(10);", "const LONGEST: Duration = Duration::from_secs(100);", "suspicion::"),
    ("token health", "it waits for a second and no longer", "src/gateway/why.rs", "const CONCLUSION: Duration = Duration::from_secs(1);", "const CONCLUSION: Duration = Duration::from_secs(100);", "suspicion::"),
    ("token health", "a page is no success", "src/gateway/forward.rs", "if head.status.is_success() && !is_page {", "if head.status.is_success() {", "suspicion::"),
    ("token health", "five minutes at most", "src/config/health.rs", ".map(|wait| wait.min(LONGEST_WAIT))", "", "suspicion::"),
    ("token health", "SIGHUP makes it look again", "src/app.rs", "                reloader.reload(crew).await;\n                health.look_again(None);\n", "                reloader.reload(crew).await;\n", "suspicion::"),
    ("token health", "a write of the same token makes it look again", "src/reload/tokens.rs", "if before.is_some() && before != written {", "if before.is_some() && before != written && written.is_none() {", "suspicion::"),
    ("R-21", "recheck: off unless it is wanted", "src/app.rs", "reloader.config().admin.recheck.then(", "true.then(", "suspicion::"),
    ("R-21", "recheck: Host is looked at", "src/admin/recheck.rs", "    one && !of_a_browser\n", "    !of_a_browser\n", "recheck:: | suspicion::"),
    ("R-21", "recheck: no page", "src/admin/recheck.rs", "    one && !of_a_browser\n", "    one\n", "recheck:: | suspicion::"),
    ("R-21", "recheck: once a minute", "src/admin/recheck.rs", "        if !left.is_zero() {\n", "        if left > PAUSE {\n", "recheck:: | suspicion::"),
    ("token health", "tokens of two owners are an outage", "src/health/outage.rs", "differ(one, other) && together(one, other)", "differ(one, other) && together(one, other) && one.owner.is_none()", "outage:: | suspicion::"),
    ("token health", "tokens of one owner are none", "src/health/outage.rs", "!login::is_same(one, other)", "!one.is_empty() && !other.is_empty()", "outage:: | suspicion::"),
    ("token health", "an outage ends for all at once", "src/health.rs", "                    self.look_again_at_the_outage();\n", "", "suspicion::"),
    ("token health", "a standby is asked about while it is healthy", "src/health/machine.rs", "self.due = stands_by.then_some(now);", "self.due = None;", "machine:: | suspicion::"),
    ("token health", "Retry-After is the time to the next look", "src/gateway/record.rs", "seconds_to_next_look(reason, exchange).or(answer.retry_after.map(u64::from))", "answer.retry_after.map(u64::from)", "suspicion::"),
    ("metrics", "own requests are counted", "src/health/ask.rs", "        self.meters.own_requests(purpose, u64::try_from(requests).unwrap_or(u64::MAX));\n", "        let _ = (purpose, requests);\n", "suspicion::"),
    ("reasons", "SIGHUP asks again for reasons", "src/health.rs", "                    self.doubts.look_again(slot.sender(), now);\n", "", "suspicion::"),
    ("reasons", "questions of a day are bounded", "src/health/doubts.rs", " && spent.len() < QUESTIONS_A_DAY;", ";", "doubts::"),
    ("token health", "a token that comes back begins anew", "src/reload/generation.rs",
     "kept.unwrap_or_else(|| EPOCHS.fetch_add(1, Ordering::Relaxed))", "kept.unwrap_or_else(|| before.map_or(0, |slot| slot.epoch + 1))", "health::"),
    ("token health", "questions wait for each other", "src/health/doubts.rs", "        if self.is_busy {\n", "        if self.is_busy && self.waiting.is_empty() {\n", "health::"),
    ("token health", "a token that does not read is not taken for one without a grant", "src/health/ask.rs", "        if !reads {\n", "        if !reads && counter == 0 {\n", "health:: | troubleshooting::"),
    ("token health", "a name that holds a token is no login", "src/probe/identity.rs", " && !leaks", "", "health:: | identity:: | doctor::"),
    ("token health", "a counter is asked about once in a minute", "src/health/doubts.rs", "if is_fresh || self", "if self", "health:: | doubts::"),
    ("token health", "questions wait for longer each time", "src/health/machine.rs",
     "        self.wait = (self.wait * 2).min(settings.probe_at_most.max(settings.probe_after));\n", "", "machine::"),
    ("reasons", "success is learnt from", "src/gateway/forward.rs", "            exchange.succeeded(now);\n", "", "reasons:: | troubleshooting::"),
    ("reasons", "what one worker learns the others know", "src/health.rs", "        crew.learn(sender, fact);\n", "        let _ = crew;\n", "reasons::"),
    ("reasons", "the answer says why", "src/gateway/why.rs",
     "record::say_why(&mut head.headers, diagnosis.cause.as_str(), hint);", "let _ = hint;", "reasons::"),
    ("doctor", "why a place is not reached is looked at", "src/doctor.rs", "if !matches!(why, Obstacle::Connection(_)) {",
     "if matches!(why, Obstacle::Connection(_)) {", "doctor_remedies::"),
    ("doctor", "what an owner sees is looked at", "src/doctor/counters.rs", "(counters, all) = (seeing.sees.clone(), seeing.sees.len());",
     "(counters, all) = (Vec::new(), 0);", "doctor_remedies::"),
    ("doctor", "one token in two files is found", "src/doctor.rs", "    doctor.compare_files(&held);\n", "", "doctor_remedies::"),
    ("doctor", "what is not so does not hold", "src/doctor/assumptions.rs", "let verdict = if held { Verdict::Held } else { Verdict::Not };",
     "let verdict = if held || !seen.is_empty() { Verdict::Held } else { Verdict::Not };", "assumptions::"),
    ("doctor", "a quota is no answer", "src/doctor/assumptions.rs", "        if answer.is_quota() {\n", "        if answer.is_quota() && answer.status == 0 {\n", "assumptions::"),
    ("metrics", "whose answer it was is counted", "src/metrics.rs", "if passed_on { Origin::Upstream } else { Origin::Gate }", "if passed_on { Origin::Gate } else { Origin::Gate }", "metrics::"),
    ("metrics", "a token of another account is counted", "src/worker/learning.rs", "slots.iter().map(|slot| (slot.alias, is_of_another(slot))).collect()",
     "slots.iter().map(|slot| (slot.alias, is_of_another(slot) && slot.epoch == u64::MAX)).collect()", "metrics::"),
    ("lists", "a list is filtered", "src/gateway/forward.rs", "let only = owed.and_then(|owed| owed.list);", "let only = owed.and_then(|owed| owed.list.filter(|_| false));", "filtered::"),
    ("lists", "a list that is filtered takes no search", "src/rules.rs", "                    return Err(Breach::Search);", "                    let _ = Breach::Search;", "filtered::"),
    ("reasons", "what an operation takes no notice of teaches nothing", "src/knowledge.rs", "            (None, Reach::Counter(_) | Reach::Reports, Counters::One(counter)) => {", "            (None, _, Counters::One(counter)) => {", "knowledge::"),
    ("reasons", "what is no login is not remembered", "src/knowledge.rs", "if login::is_one(login) && !self", "if !self", "knowledge::"),
    ("lists", "a list that breaks off is counted once", "src/gateway/forward.rs", "if matches!(error, BodyError::NotAList(_)) {", "if !error.to_string().is_empty() {", "filtered::"),
    ("lists", "what cannot be looked into is refused", "src/gateway/filtered.rs", "if has_body && (coding", "if !has_body && (coding", "filtered::"),
    ("lists", "the length of the whole list stays here", "src/gateway/filtered.rs", "for name in [CONTENT_LENGTH, ETAG] {", "for name in [ETAG] {", "filtered::"),
    ("counters", "a counter that is not listed is refused", "src/rules.rs",
     "find(|counter| listed.binary_search(counter).is_err())", "find(|counter| listed.is_empty() && **counter > 0)", "rules | spellings"),
    ("counters", "a counter that cannot be read is refused", "src/rules.rs", "    if *named == Counters::Unreadable {",
     "    if *named == Counters::Unreadable && listed.is_empty() {", "rules | spellings"),
    ("counters", "a name that only looks like another is refused", "src/rules.rs", "if odd.has(Names::IDS | Names::ID | Names::COUNTER) {",
     "if odd.has(Names::IDS | Names::ID | Names::COUNTER) && counters.is_empty() {", "rules | spellings"),
    ("counters", "marks of a name that are encoded hide nothing", "src/target/names.rs",
     "other if memchr::memchr(b'%', other).is_some() &&", "other if other.is_empty() &&", "names:: | rules | spellings"),
    ("counters", "a report names a counter", "src/rules.rs", "Reach::Reports if names_none => return",
     "Reach::Reports if names_none && counters.is_empty() => return", "rules"),
    ("counters", "what works on the whole account is refused", "src/rules.rs", "Reach::Account => return Err(Breach::Account),",
     "Reach::Account => false,", "rules"),
    ("counters", "the list of all counters is refused", "src/rules.rs", "if (self.list == List::Refuse && !names_own) || !is_json {", "if !is_json {", "rules"),
    ("counters", "only JSON is filtered", "src/rules.rs", "if (self.list == List::Refuse && !names_own) || !is_json {", "if self.list == List::Refuse && !names_own {",
     "rules"),
    ("counters", "a login that is not listed is refused", "src/rules.rs", "!named.all(|login| login::is_among(listed, login))",
     "!named.all(|login| listed.is_empty() || login::is_among(listed, login))", "rules | spellings"),
    ("counters", "a body is read before anything is sent", "src/gateway/owed.rs", "owed.reading.check(&plain)",
     'owed.reading.check(plain.get(..0).unwrap_or_default())', "rules_bodies"),
    ("counters", "a body is JSON that can be read", "src/decide/body.rs", "if !is_readable || self.packing == Packing::Other {",
     "if !is_readable && self.packing == Packing::Other {", "body:: | rules_bodies"),
    ("counters", "a body is read up to a bound", "src/gateway/body.rs", "if ahead.over || ahead.data.len() > limit {",
     "if ahead.over || ahead.data.len() / 1000 > limit {", "rules_bodies"),
    ("counters", "what was read goes on with its trailers", "src/gateway/body.rs", "ahead.trailers = frame.into_trailers().ok();",
     "drop(frame);", "rules_bodies"),
    ("counters", "what is enforced refuses", "src/policy.rs", "Err(denial) if caller.rules.enforce => return Err(denial),",
     "Err(denial) if caller.rules.enforce && operation.deprecated => return Err(denial),", "policy:: | rules"),
    ("danger", "what the API cannot undo is refused", "src/rules.rs", "Destructive::Always if !self.destructive =>",
     "Destructive::Always if !self.destructive && !self.enforce =>", "rules"),
    ("danger", "what nobody knows how to undo counts as that", "src/operation.rs", "destructive: Destructive::of(matches!(scope, Scope::Write)),",
     "destructive: Destructive::Never,", "rules"),
    ("danger", "a parameter makes it one that the API cannot undo", "src/rules.rs", "Place::Query if setting::could_stand_in(call.query.unwrap_or_default(), setting) => {",
     "Place::Query if setting::could_stand_in(\"\", setting) => {", "rules | setting:: | spellings"),
    ("danger", "in whatever spelling of its name", "src/rules/setting.rs", "(name != setting.name.as_bytes()", "(name.is_empty()", "setting:: | rules"),
    ("danger", "and behind a semicolon", "src/rules/setting.rs", "query.split(['&', ';'])", "query.split(['&'])", "setting:: | rules | spellings"),
    ("danger", "and of its value", "src/rules/setting.rs", "is_plain && letters(value)", "value != than.as_bytes() || is_plain && letters(value)", "setting:: | rules | spellings"),
    ("danger", "and so does a body", "src/rules.rs", "Place::Body => Ok(Some(setting)),", "Place::Body => Ok(None),", "rules | setting::"),
    ("danger", "what cannot be read of it is refused", "src/rules/reading.rs", "(false, _) => Err(Breach::Body),", "(false, _) => Ok(()),", "rules | setting::"),
    ("sharing", "what gives access is refused", "src/rules.rs", "if gives_access && !self.sharing {",
     "if gives_access && !self.sharing && call.path.is_empty() {", "rules"),
    ("R-9", "by_method reaches only the API's own areas", "src/operation.rs", "!AREAS.iter().any(|area| path.starts_with(area))", "path.is_empty()",
     "operation::tests::rule_5 | forward::a_target_without"),
    ("sharing", "grants in a counter are access", "src/rules.rs", "duties.body.grantees = Grantees::Nobody;", "duties.body.grantees = Grantees::Free;", "rules_marks::grants_in"),
    ("R-13", "a line that is kept back is looked at once", "src/server/caller_io.rs", "let broken = self.framing.encode(&mut self.kept).map_err(fault)?;",
     "let Ok(broken) = self.framing.encode(&mut self.kept).map_err(fault) else { return Ok(()) };", "canonical::what_has_no_one"),
    ("lists", "a list is ordered only where it names counters", "src/rules.rs", "(names_own && CHOOSING.contains(&name))", "CHOOSING.contains(&name)", "filtered::"),
    ("sharing", "what nobody knows may give access", "src/operation.rs", "shares: if matches!(scope, Scope::Write) { Shares::Anyone } else { Shares::Nothing },",
     "shares: Shares::Nothing,", "rules"),
    ("sharing", "making a measurement token is asking for one", "src/rules.rs", "        return Err(Breach::SecretAnswer);\n", "        let _ = Breach::SecretAnswer;\n", "rules"),
    ("sharing", "a grant names a grantee, in the path", "src/rules/grantees.rs", "            if in_path.as_deref().is_some_and(|login| !login::is_among(listed, login)) {",
     "            if in_path.as_deref().is_some_and(str::is_empty) {", "rules | grantees::"),
    ("sharing", "and in the query", "src/rules/grantees.rs", "                if !login::is_among(listed, &login) {", "                if login.is_empty() {", "rules | grantees:: | spellings"),
    ("sharing", "and in the body", "src/rules/grantees.rs", "(Key::Login, Scalar::Text(login)) => login::is_among(self.listed, login),",
     "(Key::Login, Scalar::Text(login)) => !login.is_empty(),", "rules | grantees::"),
    ("sharing", "and at all", "src/rules/reading.rs", "(is_due && !sought.is_named)", "(is_due && !is_due)", "rules | grantees::"),
    ("sharing", "not everybody", "src/rules/grantees.rs", "        Shares::Anyone => Err(Breach::Grantee),", "        Shares::Anyone => Ok(Grantees::Free),", "rules | grantees::"),
    ("logins", "without a login it is the whole account", "src/rules.rs", "        if is_absent && !self.ulogin_absent { Err(Breach::NoLogin) } else { Ok(()) }", "        Ok(())", "rules"),
    ("logins", "which is refused where logins stand alone", "src/rules.rs", "        !ulogin || counters\n", "        !ulogin || counters || !counters\n", "rules | logins_are"),
    ("logins", "spellings of one are one", "src/login.rs", "one.len() == other.len() && spelled(one).eq(spelled(other))", "one == other", "login:: | rules"),
    ("R-24", "a HEAD is not the twin of a GET that acts", "src/operation.rs", "if verb == Verb::Head && operation.acts =>", "if verb == Verb::Head && operation.deprecated =>", "operation:: | rules_marks::"),
    ("R-6", "a suffix is no part of a counter", "src/operation.rs", "stripped.is_none() || operation.suffixes ||", "stripped.is_none() || operation.id.as_str() != \"\" ||", "operation:: | rules_marks::"),
    ("jsonp", "a script is not asked for in another spelling", "src/rules.rs", "(call.names | odd).has(Names::CALLBACK) {\n            return Err(Breach::Callback);",
     "call.names.has(Names::CALLBACK) {\n            return Err(Breach::Callback);", "rules"),
    ("jsonp", "a script is not asked for", "src/rules.rs", "            return Err(Breach::Callback);", "            let _ = Breach::Callback;", "rules | rejections"),
    ("jsonp", "measurement tokens are not asked for, encoded twice", "src/rules.rs", "once.contains(&b'%') || letters", "letters", "rules"),
    ("jsonp", "measurement tokens are not asked for", "src/rules.rs", "if names_some { Err(Breach::Secret) } else { Ok(()) }", "Ok(())",
     "rules | rejections"),
    ("R-13", "what has ended is not waited for", "src/server/http2.rs", "Ok(0) | Err(_) => return,", "Ok(0) | Err(_) => {}", "prefaces::"),
    ("R-13", "a worker that stalls is seen", "src/crew.rs", "self.since.elapsed() >= STALLED", "self.since.elapsed() >= STALLED * 1000", "crew::"),
    ("R-13", "a worker that has stalled does not keep a reload", "src/crew.rs", "timeout_at(deadline, receiver).await.is_err() {", "timeout_at(deadline + STALLED * 1000, receiver).await.is_err() {", "crew::"),
    ("R-13", "a worker that has stalled does not keep the process", "src/crew.rs", "if Instant::now() > deadline {",
     "if Instant::now() > deadline + END * 1000 {", "crew::"),
    ("log", "lines that the log does not take are counted", "src/telemetry/sink.rs", "        ends(left)\n", "        ends(&left[..0])\n",
     "log_lines:: | sink::"),
    ("log", "a log that is full for now is waited for", "src/telemetry/sink.rs", "std::thread::sleep(FULL),", "return false,", "log_lines:: | sink::"),
    ("R-13", "of connections, what fits the descriptors is used", "src/app.rs", "descriptors.fit(&mut config) {", "descriptors.short(&config) {", "descriptors::"),
    ("R-13", "after a reload too", "src/reload/configuration.rs", "descriptors.fit(&mut config).map(", "descriptors.short(&config).map(", "descriptors::"),
    ("R-13", "descriptors are kept back for the admin listener", "src/descriptors.rs", "own + self.admin() + self.most / SPARE", "OF_THE_PROCESS.min(own) - 24", "descriptors::"),
    ("R-13", "no token fails for want of a descriptor", "src/reload/tokens.rs", "Err(error) if error.is_shortage() =>", "Err(error) if error.is_shortage() && error.is_denied() =>", "descriptors::"),
    ("shutdown", "what is likely to be cut is named", "src/app.rs", "            crew.name_what_may_be_cut();\n", "", "shutdown::what_is_likely"),
    ("shutdown", "and once", "src/worker/under_way.rs", "!std::mem::replace(&mut under.is_named, true)", "!std::mem::replace(&mut under.is_named, false)", "shutdown::what_is_likely"),
    ("token health", "a new token that was taken is no write of the same", "src/reload/tokens.rs", "            written.and_then(|written| self.written.insert(alias, written));\n            return Look::Taken;", "            return Look::Taken;", "reload::tokens::"),
    ("max_age", "an old connection is not kept", "src/upstream/pool.rs", "if is_young && connection.is_free()", "if (is_young || !is_young) && connection.is_free()", "age::",
     ("src/upstream/pool.rs", "idle.carried == carried && idle.connection.until > now)?;", "idle.carried == carried)?;")),
    ("max_age", "nor one of HTTP/2", "src/upstream/pool.rs", "                && connection.until > now\n", "", "age::a_busy_connection_of_http2"),
    ("sockets", "one whose file was removed is bound again", "src/server/listen.rs", "Err(error) if error.kind() == io::ErrorKind::NotFound => {\n                let sockets", "Err(error) if error.kind() == io::ErrorKind::NotADirectory => {\n                let sockets", "sockets::"),
    ("sockets", "the old one is closed", "src/server.rs", "            _ = replaced => {}\n", "            () = async { drop((replaced.await, std::future::pending::<()>().await)) } => {}\n", "sockets::"),
    ("sockets", "a socket can be made where there is one", "src/sandbox.rs", "AccessFs::RemoveFile | AccessFs::MakeSock", "AccessFs::RemoveFile", "sandbox:: | sockets::"),
    ("R-13", "bodies that are read ahead have a budget", "src/gateway/budget.rs", "self.left.get().checked_sub(bytes);",
     "Some(self.left.get().saturating_sub(bytes));", "read_ahead:: | budget::"),
    ("R-13", "bodies that are read ahead have a time", "src/gateway/owed.rs", "const TIME: Duration = Duration::from_secs(30);",
     "const TIME: Duration = Duration::from_secs(3000);", "read_ahead::a_body_has"),
    ("R-12", "a connection carries one token", "src/upstream/pool.rs", "rposition(|idle| idle.carried == carried && idle", "rposition(|idle| idle.carried.0 <= carried.0.max(u64::MAX) && idle", "poison::"),
    ("R-12", "the connections of all tokens have one bound", "src/upstream/pool.rs", "        self.make_room();\n", "", "poison::"),
    ("R-12", "what goes out is a request line", "src/target/origin.rs", "(None, Some(whole)) if whole.as_str().starts_with('/') =>", "(None, Some(whole)) if !whole.as_str().is_empty() =>",
     "forward:: | origin::"),
    ("R-22", "a request that has waited is decided again", "src/gateway/inject.rs", "if Rc::ptr_eq(&now, &self.snapshot) {", "if Rc::ptr_eq(&now, &self.snapshot) || self.owed.is_none() || self.owed.is_some() {",
     "revoked::"),
    ("R-22", "and admitted again", "src/decide/admission.rs", "Some((name, _)) if self.required != admitted.required =>", "Some((name, _)) if self.required.is_none() && admitted.required.is_none() =>",
     "revoked::"),
    ("R-22", "what was read is held to the rules of now", "src/gateway/inject.rs", "        self.owed = decision.take_owed();\n", "        let _ = decision.take_owed();\n", "revoked::"),
    ("R-24", "an answer that breaks off has begun for its caller", "src/gateway/body.rs",
     "                    ready!(exchange.connection.transport.poll_flushed(&mut broken.since, context));\n", "                    let _ = broken.since;\n", "cut::"),
    ("R-24", "and on HTTP/2", "src/server/http2.rs", "            streams.transport().flushed();\n", "", "cut::"),
    ("R-24", "what shows with the head that it is none is refused", "src/gateway/forward.rs",
     "        poll_fn(|context| streaming.poll_beginning(context)).await.map_err(not_passed_on)?;\n", "", "cut::"),
    ("R-24", "a GET that acts is not repeated", "src/operation.rs", 'acts: marks.acts || !verb.is_safe(),', "acts: !verb.is_safe(),", "retry::"),
    ("R-24", "what nobody knows may act", "src/operation.rs", "            acts: true,\n", "            acts: matches!(scope, Scope::Write),\n", "retry::"),
    ("drain", "from SIGTERM on every answer says that its connection ends", "src/gateway/record.rs", "if worker.ending() >= Ending::Leaving {", "if worker.ending() >= Ending::Cutting {", "shutdown::"),
    ("drain", "and GOAWAY on HTTP/2", "src/server/http2.rs", "if worker.ending() >= Ending::Leaving &&", "if worker.ending() >= Ending::Cutting &&", "shutdown::"),
    ("drain", "a head that has begun is read to its end", "src/server.rs", "Ending::Draining && connection.phase() == Phase::Exchange {", "Ending::Draining && connection.unused_since().is_none() {", "shutdown::a_request_that"),
    ("drain", "and a preface", "src/server/http2.rs", "        sleep(super::LAST_CALL).await;\n", "        sleep(Duration::ZERO).await;\n", "shutdown::a_request_that"),
    ("drain", "how long a connection is kept is said", "src/gateway/record.rs", "        fields.insert(KEEP_ALIVE, keep_alive.clone());\n", "        let _ = keep_alive;\n", "shutdown::how_long"),
    ("drain", "SIGQUIT drains", "src/app.rs", "            _ = self.quit.recv() => {}\n", "", "shutdown::from_the_signal"),
    ("drain", "SIGUSR1 does not end the process", "src/app.rs", "signal(SignalKind::user_defined1())?", "signal(SignalKind::hangup())?", "shutdown::signals"),
    ("whose fault", "a caller that stalls is told from one that is gone", "src/gateway/connection.rs", "        self.note_stall(Stalled { waited_for, bound: Bound::BodyIdle });\n        waited_for ==", "        waited_for ==", "stalls::"),
    ("whose fault", "an upstream that gives up on a stalled body is not to blame", "src/gateway/forward.rs", "if exchange.connection.lets_others_wait() {",
     "if exchange.connection.lets_others_wait() && exchange.request_id.is_empty() {", "stalls::"),
    ("whose fault", "what is no HTTP is the upstream's", "src/gateway/forward.rs", "= if error.is_of_the_protocol() {", "= if error.is_of_the_protocol() && !exchange.connection.lets_others_wait() {", "stalls::"),
    ("whose fault", "rules that are not enforced refuse no slow body", "src/gateway/owed.rs", "| Err(_) if need_not", "if need_not", "read_ahead::a_body"),
    ("R-22", "no request waits inside a connection", "src/upstream/pool.rs", "STREAMS.min(connection.most.get())", "STREAMS.max(connection.most.get())", "answers_http2::no_request"),
    ("whose fault", "who left gets no answer that the line does not have", "src/gateway/record.rs", "if ended.is_err() && exchange.is_finished() {",
     "if ended.is_err() && exchange.request_id.is_empty() {", "stalls::"),
]


def run(mutations):
    """What was found for each of them, one after another."""
    work = Path(tempfile.mkdtemp(prefix="metrika-gate-mutations-"))
    tree = work / "tree"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, (name.decode() for name in files)):
        if not name.startswith("fuzz/"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    target = ROOT / "target/mutations"
    for promise, what, file, text, becomes, tests, *more in mutations:
        edits = [(file, text, becomes), *more]
        before = {name: (tree / name).read_text() for name, _, _ in edits}
        stale = [name for name, text, _ in edits if before[name].count(text) != 1]
        if stale:
            yield promise, what, file, f"STALE: the text does not stand there once: {stale[0]}"
            continue
        for name, text, becomes in edits:
            (tree / name).write_text((tree / name).read_text().replace(text, becomes))
        yield promise, what, file, killed(tree, target, tests)
        for name, content in before.items():
            (tree / name).write_text(content)
    shutil.rmtree(work)


def killed(tree, target, tests):
    command = ["cargo", "nextest", "run", "--locked", "--no-fail-fast", "--target-dir", str(target), "-E", " | ".join(f"test({test})" for test in tests.split(" | "))]
    # Lints are of no interest here: what is taken away leaves names unused.
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, env={**os.environ, "RUSTFLAGS": "-A warnings"})
    if "Summary" not in done.stderr:
        return "DOES NOT COMPILE: " + " ".join(line for line in done.stderr.splitlines() if line.startswith("error"))[:200]
    failed = sorted(set(re.findall(r"(?:FAIL|TIMEOUT|SIGABRT|ABORT) \[[^]]*\] (?:\( *\d+/\d+\) )?\S+ (\S+)", done.stderr)))
    return "`" + "`, `".join(failed) + "`" if failed else "SURVIVED"


def check():
    """Whether each text still stands there once."""
    stale = 0
    for promise, what, file, text, becomes, tests, *more in MUTATIONS:
        for name, text, _ in [(file, text, becomes), *more]:
            if (ROOT / name).read_text().count(text) != 1:
                stale += 1
                print(f"STALE: {promise} | {what} | {name}: the text does not stand there once")
    print(f"{len(MUTATIONS)} protections, {stale} texts that do not stand where they should")
    return stale


def reported():
    """The rows of the page: what was found, by promise and protection."""
    rows = (line.strip("| ").split(" | ") for line in REPORT.read_text().splitlines())
    return {(cells[0], cells[1]): cells[3] for cells in rows if len(cells) == 4}


def write(results):
    known = reported()
    known.update({(promise, what): result for promise, what, _, result in results})
    lines = [
        "# 16. What is taken away, and which test says so",
        "",
        "**Decision.** A protection without a test that fails when it is gone is a hope. `tests/mutations.py` takes them away, one at a time,",
        "in a copy, and runs the tests that hold them; it is run before a release and after a change of the edge, and writes this table.",
        "Other protections were removed by hand once, when they were built; their tests name them.",
        "",
        "| promise | protection | file | tests that fail without it |",
        "|---|---|---|---|",
    ]
    rows = [(promise, what, file, known.get((promise, what))) for promise, what, file, *_ in MUTATIONS]
    lines += [f"| {promise} | {what} | `{file}` | {result} |" for promise, what, file, result in rows if result]
    REPORT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments == ["--check"]:
        sys.exit(1 if check() else 0)
    promises = [argument for argument in arguments if not argument.startswith("--")]
    known = reported() if "--missing" in arguments else {}
    results = []
    for result in run([row for row in MUTATIONS if row[:2] not in known and (not promises or row[0] in promises)]):
        print(" | ".join(result), flush=True)
        results.append(result)
        if "--write" in arguments:
            write([result])
    bad = [result for result in results if not result[3].startswith("`")]
    print(f"{len(results)} protections, {len(bad)} without a test that fails")
    sys.exit(1 if bad else 0)
