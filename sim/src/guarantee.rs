//! What is promised, and where each promise is judged, tested and broken on purpose.
//!
//! `docs/GUARANTEES.md` is written from this table, from the mutants and from what was kept of the
//! last sweep; a test holds that it says what they say.

use std::fmt::Write as _;

use crate::mutant::{Kill, Mutant};
use crate::sweep::Kept;

pub struct Guarantee {
    pub name: &'static str,
    pub promise: &'static str,
    pub oracles: &'static [&'static str],
    pub tests: &'static [Tests],
}

/// Tests of one file, from the root.
pub struct Tests {
    pub file: &'static str,
    pub names: &'static [&'static str],
}

const fn of(file: &'static str, names: &'static [&'static str]) -> Tests {
    Tests { file, names }
}

const BROKER: &str = "core/src/mesh/tests.rs";
const DELIVERY: &str = "core/src/mesh/delivery.rs";
const SENDING: &str = "core/src/host/tests/sending.rs";
const RECEIVING: &str = "core/src/host/tests/receiving.rs";
const PRESENCE: &str = "core/src/host/tests/presence.rs";
const SESSIONS: &str = "core/src/host/tests/sessions.rs";
const STREAMS: &str = "core/src/host/tests/streams.rs";
const LINKS: &str = "core/src/host/tests/links.rs";
const SCENARIOS: &str = "sim/tests/scenarios.rs";

pub const ALL: &[Guarantee] = &[
    Guarantee {
        name: "G1 no loss",
        promise: "Once the daemon answered a send with 2xx, the message reaches the inbox of its \
                  recipient when that one comes back, or the sender's outbox says `dead` with the \
                  reason. Never silently gone.",
        oracles: &["g1_no_loss"],
        tests: &[
            of(
                BROKER,
                &["a_message_to_a_peer_in_grace_is_delivered_once_on_reattach"],
            ),
            of(DELIVERY, &["leaving_is_not_forgetting"]),
            of(
                RECEIVING,
                &["a_push_is_acknowledged_when_its_row_is_durable"],
            ),
            of(
                SENDING,
                &["an_accept_that_was_not_durable_is_not_there_after_a_crash"],
            ),
            of(
                SCENARIOS,
                &[
                    "mistake_01_claimed_is_not_delivered",
                    "mistake_20_leaving_is_not_forgetting",
                ],
            ),
            of("sim/tests/prop_plans.rs", &["no_plan_breaks_a_promise"]),
            of(
                "io-tokio/tests/sqlite_kills.rs",
                &["a_daemon_killed_at_any_moment_keeps_what_it_said_it_has"],
            ),
        ],
    },
    Guarantee {
        name: "G2 once in the inbox",
        promise: "At least once on the wire; one inbox row per mesh, recipient, sender and client \
                  message id.",
        oracles: &["g2_once"],
        tests: &[
            of(
                RECEIVING,
                &[
                    "a_duplicate_is_acknowledged_and_is_no_second_row",
                    "after_a_crash_a_message_comes_again_and_is_one_row",
                ],
            ),
            of(
                STREAMS,
                &["mail_that_arrives_while_the_backlog_is_read_is_told_once"],
            ),
        ],
    },
    Guarantee {
        name: "G3 idempotent accept",
        promise: "Same sender, id and fingerprint: the first answer again, and no second message. \
                  Another fingerprint: 409 `idempotency_key_reused`, and nothing written. A refused \
                  request consumes no id.",
        oracles: &["g3_idempotent", "limiter"],
        tests: &[
            of(
                BROKER,
                &[
                    "the_same_id_again_is_a_duplicate_before_and_after_durability_and_after_a_restart",
                    "another_fingerprint_under_the_same_id_is_refused_and_writes_nothing",
                    "a_refused_send_consumes_no_id",
                ],
            ),
            of(
                SENDING,
                &[
                    "the_accept_table",
                    "only_an_id_of_ours_that_was_never_on_a_wire_is_first",
                ],
            ),
            of("core/src/dedupe.rs", &["fresh_entries_are_never_forgotten"]),
            of(
                SCENARIOS,
                &["mistake_17_a_failed_call_is_not_taken_for_undone"],
            ),
        ],
    },
    Guarantee {
        name: "G4 atomic accept",
        promise: "Dedupe record, message and delivery become durable together or not at all.",
        oracles: &["g4_atomic_accept"],
        tests: &[
            of(
                BROKER,
                &["an_ack_waits_for_its_transaction_and_the_push_too"],
            ),
            of(
                "io-tokio/src/store/tests/broker.rs",
                &["a_violated_constraint_is_broken_and_writes_nothing"],
            ),
            of(
                "io-tokio/tests/sqlite_kills.rs",
                &["a_broker_killed_at_any_moment_keeps_what_it_said_it_has"],
            ),
        ],
    },
    Guarantee {
        name: "G5 silent reconnect",
        promise: "A peer back within its lease: nobody else is told anything; its missed live \
                  events arrive in order, without gap or repeat, or the answer is `miss` and it \
                  takes a snapshot; what it has not acknowledged is pushed again at once.",
        oracles: &["g5_silent_reconnect", "owed_is_pushed"],
        tests: &[
            of(
                BROKER,
                &[
                    "silent_for_less_than_the_grace_nobody_is_told",
                    "a_resume_continues_where_the_old_connection_stopped",
                    "a_ring_that_was_overrun_is_a_miss",
                ],
            ),
            of(
                "core/src/mesh/stream.rs",
                &["resume_continues_without_gap_or_repeat"],
            ),
            of(PRESENCE, &["a_resumed_stream_needs_no_snapshot"]),
            of(
                SCENARIOS,
                &[
                    "silence_of_60_s_is_told_to_nobody",
                    "a_nat_that_forgets_is_noticed_and_told_to_nobody",
                    "mistake_21_no_claim_is_given_to_a_peer_in_grace",
                ],
            ),
        ],
    },
    Guarantee {
        name: "G6 one leave, one join",
        promise: "Silence under 90 s is told to nobody. Beyond the lease: one `peer_left`, later one \
                  `peer_joined`, to each who may see them, also across restarts and take-overs; the \
                  daemon tells its sessions exactly that. What a peer registered stays as long.",
        oracles: &["g6_one_leave_one_join", "g6_sessions", "registration_stays"],
        tests: &[
            of(
                BROKER,
                &[
                    "beyond_the_grace_one_leave_and_then_one_join",
                    "the_late_close_of_a_replaced_connection_changes_nothing",
                    "an_owner_that_was_stopped_throws_nobody_out",
                    "after_a_restart_peers_return_silently",
                ],
            ),
            of(
                "core/src/mesh/lease.rs",
                &[
                    "at_exactly_until_the_timer_wins",
                    "joins_and_leaves_alternate",
                ],
            ),
            of(
                PRESENCE,
                &[
                    "after_a_miss_the_difference_is_told_and_nothing_else",
                    "what_was_told_survives_a_restart_and_the_difference_is_told_then",
                ],
            ),
            of(
                SCENARIOS,
                &[
                    "silence_of_150_s_is_one_leave_and_one_join",
                    "mistake_05_the_late_close_of_a_replaced_socket_evicts_nobody",
                    "mistake_07_what_a_peer_registered_outlives_its_socket",
                    "mistake_19_the_grace_timer_ends_with_the_grace",
                    "mistake_24_an_owner_that_wakes_up_throws_nobody_out",
                ],
            ),
        ],
    },
    Guarantee {
        name: "G7 claims expire",
        promise: "A push that is not acknowledged within its claim is pushed again, without anything \
                  else having to happen. An acknowledgement settles only what is owed to the one \
                  who sent it.",
        oracles: &["g7_claims", "priorities"],
        tests: &[
            of(
                BROKER,
                &[
                    "an_expired_claim_is_pushed_again_without_anything_else_happening",
                    "a_claims_time_begins_when_its_push_left",
                    "an_acknowledgement_settles_only_what_is_owed_to_the_one_who_sent_it",
                ],
            ),
            of(DELIVERY, &["redelivery_slows_down"]),
            of(SCENARIOS, &["mistake_22_an_expired_claim_pushes_by_itself"]),
        ],
    },
    Guarantee {
        name: "G8 order",
        promise: "A recipient's inbox holds the messages of one sender to one target and of one \
                  priority in the order in which the sender's daemon accepted them.",
        oracles: &["g8_order"],
        tests: &[
            of(
                SENDING,
                &["one_row_of_a_lane_is_under_way_and_lanes_run_side_by_side"],
            ),
            of(
                RECEIVING,
                &["rows_stand_in_the_order_of_the_pushes_whatever_the_look_ups_do"],
            ),
            of(
                DELIVERY,
                &[
                    "a_cold_backlog_is_paged_in_order_and_new_messages_queue_behind_it",
                    "a_message_that_is_not_durable_is_not_pushed_nor_overtaken",
                ],
            ),
        ],
    },
    Guarantee {
        name: "G9 scoping",
        promise: "No session sees a message, event, inbox row, outbox row or error that belongs to \
                  another.",
        oracles: &["g9_scoping", "g9_meshes"],
        tests: &[
            of(
                SESSIONS,
                &[
                    "sessions_never_see_each_others_rows_events_or_errors",
                    "an_unknown_token_sees_nothing",
                    "everything_is_for_the_machine_token_only",
                ],
            ),
            of(
                SCENARIOS,
                &["mistake_11_a_token_that_nobody_has_sees_nothing"],
            ),
        ],
    },
    Guarantee {
        name: "G10 attribution",
        promise: "What a session sends is attributed to that session. There is no fallback to the \
                  daemon's own key.",
        oracles: &["g10_attribution"],
        tests: &[
            of(
                SENDING,
                &["without_its_own_uplink_a_message_waits_and_never_goes_by_another"],
            ),
            of(
                SCENARIOS,
                &[
                    "mistake_10_a_relaunched_session_has_its_old_key",
                    "mistake_12_a_session_never_sends_over_its_daemons_own_uplink",
                ],
            ),
        ],
    },
    Guarantee {
        name: "G11 bounded",
        promise: "Whatever a remote side can grow has a limit and a stated behaviour at it. A slow \
                  consumer is cut off and loses nothing durable.",
        oracles: &["g11_bounded"],
        tests: &[
            of(
                BROKER,
                &[
                    "a_consumer_that_stops_reading_is_cut_off_and_loses_nothing_durable",
                    "deliveries_are_paced_by_what_is_queued_and_a_returning_peer_is_not_cut_off",
                    "a_recipient_that_is_owed_too_much_defers_the_sender",
                    "frames_behind_a_look_up_stop_the_reading_and_start_it_again",
                ],
            ),
            of("core/src/mesh/stream.rs", &["the_ring_is_bounded_in_bytes"]),
            of(
                "core/src/mesh/limiter.rs",
                &["never_more_than_burst_plus_rate"],
            ),
            of(
                STREAMS,
                &["a_stream_that_is_not_read_is_told_gap_and_ended"],
            ),
        ],
    },
    Guarantee {
        name: "G12 liveness",
        promise: "When faults stop, every outbox row ends `done` or `dead`, every claim is settled, \
                  every lease is live or gone, and what is sent then arrives: within a bounded \
                  time. Waiting for an uplink is no attempt.",
        oracles: &["g12_liveness", "waiting_is_no_attempt"],
        tests: &[
            of(
                SENDING,
                &[
                    "not_now_is_not_an_attempt",
                    "no_ack_on_a_dead_link_is_no_attempt",
                    "a_recovered_row_is_pending_and_never_first",
                ],
            ),
            of(LINKS, &["a_lost_connection_is_dialled_again_and_resumed"]),
            of(
                BROKER,
                &["a_stalled_store_refuses_at_once_and_resends_what_was_emitted"],
            ),
            of(
                SCENARIOS,
                &[
                    "mistake_03_rows_in_flight_are_picked_up_after_a_crash",
                    "mistake_04_waiting_for_an_uplink_is_no_attempt",
                    "mistake_08_every_connection_has_a_fresh_attestation",
                ],
            ),
        ],
    },
    Guarantee {
        name: "G13 privacy",
        promise: "In a sealed mesh no body reaches the broker in clear. A ciphertext is bound to \
                  mesh, sender, recipient, id, priority and reply-to: moved or relabelled it does \
                  not open, replayed it is recognised. A fingerprint from which a short body could \
                  be guessed stays on its host, and a row is said in one form for its life.",
        oracles: &["g13_privacy", "g13_forms"],
        tests: &[
            of(
                "core/src/wire/feature.rs",
                &["form_1_is_for_open_meshes_of_brokers_that_know_no_other"],
            ),
            of(
                "core/src/crypto/contract.rs",
                &[
                    "a_body_does_not_show",
                    "whatever_is_changed_it_does_not_open",
                    "it_opens_neither_for_a_stranger_nor_back_to_front",
                ],
            ),
            of(
                SENDING,
                &["a_message_is_sealed_for_its_target_and_goes_over_its_senders_uplink"],
            ),
            of(STREAMS, &["secrets_and_bodies_are_in_no_log_and_no_status"]),
        ],
    },
    Guarantee {
        name: "G14 truthful receipts",
        promise: "Nobody is told a rung that was not reached: 202 when the row is durable in the \
                  outbox, `ack` when the message is durable at the broker, `client_ack` when its row \
                  is durable in the inbox, `delivered` when it was acknowledged, `seen` when it was \
                  looked at. A sender that was away learns it when it is back.",
        oracles: &[
            "g14_truthful",
            "g14_receipts",
            "g14_explained",
            "g14_at_the_sender",
        ],
        tests: &[
            of(
                "core/src/gate.rs",
                &["nothing_leaves_before_its_transaction_and_order_is_kept"],
            ),
            of(
                SENDING,
                &["nothing_is_promised_or_sent_before_it_is_durable"],
            ),
            of(
                SCENARIOS,
                &["mistake_14_nothing_is_told_before_it_is_durable"],
            ),
            of(
                "core/src/host/tests/receipts.rs",
                &[
                    "a_ladder_is_climbed_and_told_to_its_session_alone",
                    "a_number_counts_once_and_a_rung_never_goes_down",
                    "the_hello_asks_for_what_is_behind_the_durable_number",
                ],
            ),
            of(
                "core/src/host/tests/seen.rs",
                &[
                    "nothing_is_told_before_the_mark_is_durable",
                    "it_is_told_again_until_it_was_taken",
                ],
            ),
            of(
                "core/src/host/tests/messages.rs",
                &["what_was_received_is_found_by_its_reader_and_by_nobody_else"],
            ),
        ],
    },
    Guarantee {
        name: "a hello is good once",
        promise: "The same hello is taken once, by this owner and by every later one.",
        oracles: &["hello_once"],
        tests: &[
            of(
                "core/src/mesh/hellos.rs",
                &["a_hello_is_taken_once_even_after_it_was_forgotten"],
            ),
            of(BROKER, &["the_same_hello_twice_is_refused"]),
            of(SCENARIOS, &["a_replayed_hello_is_refused"]),
        ],
    },
    Guarantee {
        name: "moderation",
        promise: "Only an admin puts others out. A kick or a ban ends leases at once, with one leave \
                  each; a kick reaches no control plane that it did not name exactly; a banned \
                  member holds no lease, and nothing new is accepted from or to it.",
        oracles: &["moderation"],
        tests: &[of(
            "core/src/mesh/tests/moderation.rs",
            &[
                "a_ban_ends_every_lease_of_the_member_with_one_leave_each",
                "a_kick_reaches_no_control_plane_that_it_did_not_name",
                "mail_to_the_banned_is_forbidden_and_what_was_accepted_is_answered_again",
                "only_admins_may_and_nobody_bans_itself",
            ],
        )],
    },
    Guarantee {
        name: "quiet hellos",
        promise: "A quiet hello lets a key send, and does nothing else: nobody joins or leaves by it, no \
                  list shows it, nothing is pushed to it, and it replaces nothing but a quiet one.",
        oracles: &["quiet_hello"],
        tests: &[of(
            "core/src/mesh/tests/quiet.rs",
            &[
                "it_joins_nobody_is_in_no_list_and_is_told_nothing",
                "beside_a_lease_it_is_no_connection_of_it",
            ],
        )],
    },
    Guarantee {
        name: "sides of any age",
        promise: "A broker and a daemon of different ages go on in the lower of their versions, and \
                  in what both of them can do; or the one that cannot go on says what it misses. A \
                  daemon then stops, says so in its status, loses nothing, and tries again in an \
                  hour or when it is asked to.",
        oracles: &["terms_kept", "unsuited_stops"],
        tests: &[
            of(
                "core/src/wire/version.rs",
                &[
                    "both_sides_go_on_in_the_lower_version",
                    "each_version_spells_an_acknowledgement_its_own_way",
                ],
            ),
            of(
                "core/src/wire/feature.rs",
                &[
                    "each_shortfall_has_its_close",
                    "a_version_is_known_or_it_is_not",
                    "a_floor_is_reached_by_what_stands_on_it",
                ],
            ),
            of(
                SCENARIOS,
                &["a_broker_below_the_floors_is_left_alone_for_an_hour"],
            ),
        ],
    },
    Guarantee {
        name: "idle is quiet",
        promise: "A healed world in which nobody does anything sends heartbeats and nothing else, \
                  and writes nothing.",
        oracles: &["idle_quiet"],
        tests: &[of(LINKS, &["no_deadline_is_left_of_an_idle_host"])],
    },
    Guarantee {
        name: "no error of ours",
        promise: "No machine logs an error or panics, whatever the world does to it.",
        oracles: &["no_error_log", "no_panic"],
        tests: &[
            of(
                "core/src/timers.rs",
                &["behaves_like_a_map_scanned_for_its_minimum"],
            ),
            of(BROKER, &["a_spurious_timeout_changes_nothing"]),
            of(LINKS, &["a_spurious_time_out_changes_nothing"]),
        ],
    },
    Guarantee {
        name: "what is recovered is what was",
        promise: "A restart finds the state that was durable, and an owner asks of its store only \
                  what an owner in its right mind asks: transactions in sequence, under its own term.",
        oracles: &["recovered_equals_live", "store"],
        tests: &[
            of(
                "core/src/host/tests/stalls.rs",
                &["what_was_forgotten_is_given_again_and_new_sends_are_busy"],
            ),
            of(
                "io-tokio/src/store/tests/broker.rs",
                &[
                    "agrees_with_the_image_on_what_is_recovered_and_loaded",
                    "a_new_owner_raises_the_term_and_fences_the_old_one",
                    "a_gap_is_broken",
                ],
            ),
            of(
                SCENARIOS,
                &[
                    "mistake_09_a_restarted_daemon_knows_its_sessions",
                    "mistake_16_no_number_is_used_again_after_a_restart",
                ],
            ),
        ],
    },
];

/// `docs/GUARANTEES.md`.
#[must_use]
pub fn page(mutants: &[Mutant], kills: &[Kill], kept: &Kept) -> String {
    let found = |mutant: &Mutant| kills.iter().find(|kill| kill.name == mutant.name);
    let mut text = format!(
        "# Guarantees\n\n\
         <!-- Written by `sim guarantees`; sim/src/guarantee.rs is where to edit it. -->\n\n\
         Each row: what is promised, the oracles that judge it in the simulation, tests of it alone, and\n\
         mutants: changes of the code for the worse, with the seed at which the oracle finds each.\n\
         [TESTING](TESTING.md) says how all of this works, and what it does not cover.\n\n\
         Every oracle judges every seed. The last sweep that was kept ran {seeds} seeds from {from}: {steps} steps,\n\
         {hours} virtual hours, {marks_hit} of {marks_total} marks hit, {violations} violations\n\
         ([sweep.json](sweep.json)). All of it again, and kept:\n\n\
         ```\n\
         cargo run --profile sim -p sim -- sweep --seeds {seeds} --from {from} --jobs 2 --record docs/sweep.json\n\
         ```\n\n\
         The last column stands behind `cargo run --profile sim -p sim --`, and breaks that promise in each of\n\
         the ways of its row. A test alone: `cargo test --profile sim --workspace NAME`.\n\n\
         | | what is promised | oracles | tests | mutants | again |\n\
         |---|---|---|---|---|---|\n",
        seeds = kept.seeds,
        from = kept.from,
        steps = kept.steps,
        hours = kept.virtual_hours,
        marks_hit = kept.marks_hit,
        marks_total = kept.marks_total,
        violations = kept.violations,
    );
    for guarantee in ALL {
        let oracles = listed(guarantee.oracles.iter().map(|oracle| oracle_link(oracle)));
        let tests = listed(guarantee.tests.iter().flat_map(|tests| {
            let link = |name: &&str| format!("[{name}](../{})", tests.file);
            tests.names.iter().map(link)
        }));
        let own = mutants
            .iter()
            .filter(|mutant| guarantee.oracles.contains(&mutant.found_by.as_str()));
        let own = listed(own.map(|mutant| {
            let seed = found(mutant).map_or("not found".to_owned(), |kill| kill.seed.to_string());
            format!("[{0}](../sim/mutants/{0}.patch) {seed}", mutant.name)
        }));
        let _ = writeln!(
            text,
            "| **{}** | {} | {oracles} | {tests} | {own} | `mutants {}` |",
            guarantee.name,
            guarantee.promise,
            guarantee.oracles.join(" ")
        );
    }
    text.push_str(
        "\nWhat cannot be broken yet, because what it would be broken in does not exist, stands in\n\
         [PENDING](../sim/mutants/PENDING.md), with the feature that brings it.\n",
    );
    text
}

/// Where an oracle is: in a file of its own, or the world.
#[must_use]
pub fn oracle_file(oracle: &str) -> String {
    if crate::oracle::OF_THE_WORLD.contains(&oracle) {
        "sim/src/world.rs".to_owned()
    } else {
        format!("sim/src/oracle/{oracle}.rs")
    }
}

fn oracle_link(oracle: &str) -> String {
    format!("[{oracle}](../{})", oracle_file(oracle))
}

fn listed(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join("<br>")
}
