"""What a running application needs: which model was selected, and that model behind a URL. Knows nothing of Dagster."""
