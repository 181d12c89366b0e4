//! The stories of a whole system: real controllers, agents and instances, started and broken from outside. Each story
//! is named by its claim; those of one group share a fleet.

#[path = "stories/agents.rs"]
mod agents;
#[path = "stories/apply.rs"]
mod apply;
#[path = "stories/attacks.rs"]
mod attacks;
#[path = "stories/backup.rs"]
mod backup;
#[path = "stories/borders.rs"]
mod borders;
#[path = "stories/cli.rs"]
mod cli;
#[path = "stories/contexts.rs"]
mod contexts;
#[path = "stories/controllers.rs"]
mod controllers;
#[path = "stories/demo.rs"]
mod demo;
#[path = "stories/disks.rs"]
mod disks;
#[path = "stories/events.rs"]
mod events;
#[path = "stories/facts.rs"]
mod facts;
#[path = "stories/forgery.rs"]
mod forgery;
#[path = "stories/instances.rs"]
mod instances;
#[path = "stories/licenses.rs"]
mod licenses;
#[path = "stories/lifetime.rs"]
mod lifetime;
#[path = "stories/membership.rs"]
mod membership;
#[path = "stories/metrics.rs"]
mod metrics;
#[path = "stories/operations.rs"]
mod operations;
#[path = "stories/operator.rs"]
mod operator;
#[path = "stories/own_instance.rs"]
mod own_instance;
#[path = "stories/refusals.rs"]
mod refusals;
#[path = "stories/removal.rs"]
mod removal;
#[path = "stories/starting.rs"]
mod starting;
#[path = "stories/telemetry.rs"]
mod telemetry;
#[path = "stories/thirty_days.rs"]
mod thirty_days;
#[path = "stories/tls.rs"]
mod tls;
#[path = "stories/tokens.rs"]
mod tokens;
#[path = "stories/trail.rs"]
mod trail;
#[path = "stories/upgrade.rs"]
mod upgrade;

use std::process::ExitCode;

use dotmac_tests::{
    group,
    runner::{self, Group},
};

fn main() -> ExitCode {
    let mut groups = what_operators_do();
    groups.extend(what_goes_wrong());
    groups.extend(what_comes_and_goes());
    groups.extend(what_is_told());
    runner::main(groups)
}

fn what_operators_do() -> Vec<Group> {
    vec![
        group!(operator:
            timed the_quick_start_request_as_it_stands_is_active_within_five_seconds,
            calm show_tells_the_way_of_the_order_hop_by_hop,
            calm a_program_that_knows_nothing_of_the_platform_is_released_and_deployed,
        ),
        group!(operations:
            calm an_upgrade_and_a_restart_replace_copy_by_copy_while_somebody_always_answers,
            calm an_upgrade_that_fails_stops_at_the_first_copy_and_a_rollback_touches_only_that_one,
            calm scaling_touches_only_the_copies_that_come_or_go,
            calm a_suspended_instance_stays_down_through_the_death_of_its_agent_and_comes_back_with_its_data,
            calm law_9_an_instances_environment_is_told_to_the_permitted_and_written_down_nowhere,
        ),
        group!(cli:
            calm a_deployment_lives_its_whole_life_by_the_command_line,
            calm a_dry_run_shows_the_plan_and_changes_nothing,
            calm a_person_at_a_terminal_is_asked_and_a_no_changes_nothing,
            calm every_exit_code_means_what_help_says,
            calm a_token_is_made_here_shown_once_and_worth_nothing_once_revoked,
            calm tenants_and_regions_have_their_verbs,
            calm agents_have_their_verbs,
            calm no_command_notices_that_controllers_are_restarted_one_by_one,
        ),
        group!(own_instance:
            calm every_snippet_of_the_page_works_as_it_stands,
        ),
        group!(apply:
            calm a_file_is_applied_once_and_then_there_is_nothing_to_do,
            calm a_file_with_anything_wrong_in_it_changes_nothing,
            calm an_apply_that_was_killed_is_run_again_and_doubles_nothing,
        ),
    ]
}

fn what_goes_wrong() -> Vec<Group> {
    vec![
        group!(instances:
            calm a_foreign_program_is_licensed_configured_and_measured,
            calm the_subscriber_limit_is_told_in_the_steps_of_the_contract,
            calm law_8_what_an_instance_tells_counts_once_while_leader_and_agent_die,
            calm law_7_the_secret_of_one_instance_opens_nothing_of_anothers,
        ),
        group!(licenses:
            timed a_changed_license_is_in_the_instances_hands_within_two_seconds,
            calm a_withdrawn_license_stops_the_process_and_a_reinstated_one_starts_it,
            calm law_5_no_timer_takes_an_instance_down,
            calm law_5_an_instance_restarts_licensed_while_all_controllers_are_away,
        ),
        group!(thirty_days:
            alone law_5_thirty_days_without_controllers_take_no_instance_down_and_a_clock_set_back_extends_nothing,
        ),
        group!(removal:
            calm law_2_only_a_tombstone_after_its_grace_time_removes_an_instance,
            calm undelete_within_the_grace_time_restarts_nothing,
        ),
        group!(borders:
            calm law_7_a_foreign_deployment_and_a_missing_one_give_the_same_404,
            calm law_4_a_join_token_admits_one_agent_of_one_region_once,
            calm law_11_what_is_too_much_is_refused_or_cut_and_nothing_else_suffers,
        ),
        group!(attacks:
            calm slow_and_silent_connections_hold_up_nobody,
            calm of_two_creates_with_one_domain_exactly_one_wins,
            calm a_foreign_idempotency_key_tells_nothing_and_means_one_request_for_ever,
            calm a_flood_of_one_caller_leaves_everybody_elses_requests_correct,
            calm nothing_that_callers_write_gets_into_a_log_as_it_is,
        ),
        group!(tls:
            alone a_controller_off_the_loopback_speaks_tls_or_does_not_start,
        ),
        group!(telemetry:
            alone one_trace_leads_from_the_request_to_the_healthy_instance_and_nothing_waits_for_the_collector,
        ),
        group!(controllers:
            timed law_1_nothing_acknowledged_is_lost_when_the_leading_controller_is_killed,
            calm law_5_cut_off_from_all_controllers_is_not_down,
            calm law_10_an_order_says_what_it_waits_for_and_one_controller_alone_signs_nothing,
        ),
        group!(agents:
            calm an_agent_that_was_killed_finds_everything_as_it_left_it,
            calm a_killed_instance_is_restarted_and_shown_as_degraded,
            calm a_hang_is_found_by_the_probe,
            calm an_instance_that_keeps_crashing_fails_with_the_reason_and_its_last_lines,
        ),
        group!(events:
            calm whoever_watches_a_follower_sees_all_and_outlives_his_controller,
            calm law_7_a_tenants_watcher_sees_nothing_of_another_tenant,
            calm two_hundred_watchers_end_with_the_same_last_state,
        ),
        group!(contexts:
            calm a_login_at_a_terminal_shows_no_token_and_learns_every_controller,
            calm the_doctor_finds_a_fleet_well_and_packs_no_secret,
        ),
        group!(tokens:
            timed a_revoked_token_counts_nowhere_within_a_second,
            calm a_token_expires_by_itself_on_every_controller,
            calm a_revoked_agent_is_cut_off_and_never_comes_back,
        ),
        group!(facts:
            calm law_8_a_report_counts_once_when_the_agent_dies_before_its_acknowledgement,
            calm law_8_an_order_counts_once_when_its_gateway_dies_before_the_receipt,
            calm law_8_every_record_counts_once_while_controllers_keep_dying,
            calm law_8_a_retried_request_counts_once,
        ),
        group!(forgery:
            calm law_3_what_one_controller_signs_alone_moves_nobody,
        ),
        group!(lifetime:
            calm two_fleets_live_side_by_side,
            calm up_again_recognises_what_runs,
            timed a_stopped_fleet_has_everything_again_within_five_seconds,
            calm law_1_after_a_kill_of_everything_up_adopts_what_survived_and_restarts_the_rest,
        ),
        group!(demo:
            calm breaking_the_leader_loses_nothing,
            calm breaking_an_agent_loses_nothing,
            calm breaking_an_instance_loses_nothing,
            calm breaking_all_controllers_loses_nothing,
        ),
        group!(refusals:
            alone a_port_in_use_is_one_clear_line_and_nothing_is_started,
            alone a_home_that_cannot_be_written_is_one_clear_line_and_nothing_is_started,
            alone data_of_a_newer_version_is_one_clear_line_and_nothing_is_harmed,
        ),
    ]
}

fn what_comes_and_goes() -> Vec<Group> {
    vec![
        group!(membership:
            alone three_controllers_become_five_and_three_again_and_agents_obey_the_new_set,
        ),
        group!(upgrade:
            alone an_upgrade_one_process_at_a_time_fails_no_request_and_can_be_taken_back,
            alone a_finalized_upgrade_is_not_taken_back_and_the_program_of_before_says_so,
        ),
        group!(disks:
            alone on_one_core_with_half_a_second_a_sync_a_fleet_becomes_ready_and_says_so,
            alone at_the_reserve_a_cluster_turns_read_only_and_recovers_when_there_is_room,
        ),
        group!(starting:
            alone a_controller_that_will_not_start_says_why_and_what_to_do_next,
        ),
    ]
}

fn what_is_told() -> Vec<Group> {
    vec![
        group!(backup:
            alone law_2_a_restored_old_backup_removes_and_reverts_nothing_newer,
            alone law_12_backups_go_to_an_s3_store_and_one_that_is_away_delays_nothing,
        ),
        group!(trail:
            calm one_story_with_one_request_from_the_api_to_the_agent,
            calm law_9_a_planted_secret_is_in_no_file_but_the_one_that_its_agent_keeps,
            calm the_logs_of_an_instance_reach_the_operator_through_no_controllers_eyes,
            calm a_byte_changed_on_disk_is_named,
        ),
        group!(metrics:
            calm what_dashboards_and_alerts_ask_for_is_what_a_fleet_tells,
            calm promtool_finds_nothing_wrong,
            alone the_alert_rules_fire_when_they_should_and_else_not,
            calm every_process_is_ready_and_guests_learn_no_figures,
            calm every_line_of_the_logs_keeps_to_the_schema,
            calm law_5_an_agent_that_is_cut_off_is_ready_and_says_so,
            calm a_leader_that_no_majority_confirms_says_so_and_wakes_somebody,
        ),
    ]
}
