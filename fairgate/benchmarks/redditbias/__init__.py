"""RedditBias: comments about a group against the same comments about another group."""
