# Scores as they happen: without arguments the server, with its URL the client.
use Mojolicious::Lite -signatures;
use Mojo::IOLoop;
use Mojo::Server::Daemon;
use Mojo::UserAgent;

my $AUTHORIZATION = {Authorization => 'Bearer sesame'};

under sub ($c) {
  return 1 if ($c->req->headers->authorization // '') eq $AUTHORIZATION->{Authorization};
  $c->render(text => "who are you?\n", status => 401);
  return undef;
};

websocket '/' => sub ($c) {
  $c->tx->with_protocols('scores.v1');
  my ($score, $timer) = (0);
  $c->on(json => sub ($c, $json) {
    return $c->finish(4000 => 'stopped') if $json->{stop};
    $timer = Mojo::IOLoop->recurring(0.05 => sub ($loop) {
      $c->send({json => {team => $json->{team}, score => ++$score}});
    });
  });
  $c->on(finish => sub { Mojo::IOLoop->remove($timer) if $timer });
};

sub run_server {
  app->log->level('fatal');
  my $daemon = Mojo::Server::Daemon->new(app => app, listen => ['http://127.0.0.1:0'], silent => 1);
  $daemon->start;
  say 'listening on ws://127.0.0.1:', $daemon->ports->[0], '/';
  $daemon->run;
}

sub run_client ($url) {
  my $ua = Mojo::UserAgent->new;
  $ua->websocket($url => $AUTHORIZATION => ['scores.v1'] => sub ($ua, $tx) {
    say 'this is ', $tx->protocol;
    $tx->on(json => sub ($tx, $json) {
      say "lions $json->{score}" if $json->{score} <= 3;
      $tx->send({json => {stop => \1}}) if $json->{score} == 3;
    });
    $tx->on(finish => sub ($tx, $code, $reason) {
      say "closed with $code ($reason)";
      $ua->websocket($url => sub ($ua, $tx) {
        say $tx->is_websocket ? 'anybody may come in' : 'refused with ' . $tx->res->code;
        Mojo::IOLoop->stop;
      });
    });
    $tx->send({json => {team => 'lions'}});
  });
  Mojo::IOLoop->start;
}

$| = 1;
@ARGV ? run_client($ARGV[0]) : run_server();
