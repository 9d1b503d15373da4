from tests.database.test_forks import *
