from tests.database.test_message_search import *
